"""The MindSpore backend. mindspore is imported when a session is opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from portdet.lower.target import Target
from portdet.session import Arrays, Check, Inexact, MethodCall, Options, Recipe, Session, Source
from portdet_mindspore.launch import LAUNCHER
from portdet_mindspore.target import TARGET

HIDES = "its kernel gives the other value where one is nan"
ONE_BY_ONE = "its kernel adds one by one"
KNOWN: Mapping[str, str | Inexact] = MappingProxyType(
    {
        "sweep/relu of nan and infinity": "its kernel makes nan 0",
        "sweep/maximum* of nan and infinity": HIDES,
        "sweep/minimum* of nan and infinity": HIDES,
        "sweep/bce_with_logits gradient of a": Inexact(8, "the sigmoid in it is MindSpore's float32 one"),
        "reductions/mul_100003x3_by_3 gradient": Inexact(100, ONE_BY_ONE),
        "reductions/batch_norm_2x8x160x160_at_* gradient": Inexact(150, ONE_BY_ONE),
    }
)
"""On a CPU; MindSpore 2.10."""


class MindSporeBackend:
    """MindSpore on cpu, Ascend and cuda, in PyNative ('eager') or graph mode ('compiled')."""

    name = "mindspore"
    target = TARGET
    other_precisions: Mapping[str, Target] = MappingProxyType({})
    modes: tuple[str, ...] = ("eager", "compiled")
    default_mode = "compiled"
    known_failures = KNOWN
    file_format = "ckpt"
    loader = "mindspore.load_checkpoint"
    launcher = LAUNCHER

    def open_session(
        self, source: Source, class_name: str, recipe: Recipe, names: Mapping[str, str], options: Options
    ) -> Session:
        from portdet_mindspore.process import prepare

        prepare()
        from portdet_mindspore.session import MindSporeSession

        return MindSporeSession(source, class_name, recipe, names, options)

    def differentiate(self, call: MethodCall, options: Options) -> tuple[Arrays, Arrays]:
        from portdet_mindspore.process import prepare

        prepare()
        from portdet_mindspore.method import differentiate

        return differentiate(call, options)

    def load_file(self, path: Path) -> Arrays:
        from portdet_mindspore.process import prepare

        prepare()
        from portdet_mindspore.files import load_file

        return load_file(path)

    def doctor(self) -> list[Check]:
        from portdet_mindspore.doctor import checks

        return checks()


BACKEND = MindSporeBackend()
