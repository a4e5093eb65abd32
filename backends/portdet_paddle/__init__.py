"""The Paddle backend. paddle is imported when a session is opened."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from portdet.lower.target import Target
from portdet.session import Arrays, Check, Inexact, MethodCall, Options, Recipe, Session, Source
from portdet_paddle.launch import LAUNCHER
from portdet_paddle.target import TARGET

SOFTPLUS = "its softplus is log(1 + e^x) in float32: 6e-8 off, which is all of it below -17"
KNOWN: Mapping[str, str | Inexact] = MappingProxyType(
    {
        "sweep/relu of nan and infinity": "its kernel makes nan 0",
        "sweep/softplus": Inexact(1.7e7, SOFTPLUS),
        "sweep/mish": Inexact(1.7e7, SOFTPLUS),
        "sweep/mish, absolute": Inexact(9, SOFTPLUS),
        "sweep/mish gradient": Inexact(40, "the slope of its tanh is 1 - t^2, times x"),
        "reductions/mul_* gradient": Inexact(110, "what is broadcast gets its gradient added one by one"),
    }
)
"""On a CPU; Paddle 3.3. PaddleDetection computes with these, too."""


class PaddleBackend:
    """Paddle on cpu, gpu and npu (paddle-custom-npu)."""

    name = "paddle"
    target = TARGET
    other_precisions: Mapping[str, Target] = MappingProxyType({})
    modes: tuple[str, ...] = ("eager", "compiled")
    default_mode = "eager"
    known_failures = KNOWN
    file_format = "pdparams"
    loader = "paddle.load"
    launcher = LAUNCHER

    def open_session(
        self, source: Source, class_name: str, recipe: Recipe, names: Mapping[str, str], options: Options
    ) -> Session:
        from portdet_paddle.start import start

        start(options.threads)
        from portdet_paddle.session import PaddleSession

        return PaddleSession(source, class_name, recipe, names, options)

    def differentiate(self, call: MethodCall, options: Options) -> tuple[Arrays, Arrays]:
        from portdet_paddle.start import start

        start(options.threads)
        from portdet_paddle.method import differentiate

        return differentiate(call, options)

    def load_file(self, path: Path) -> Arrays:
        if "paddle" not in sys.modules:
            from portdet_paddle.start import start

            start(0)
        from portdet_paddle.files import load_file

        return load_file(path)

    def doctor(self) -> list[Check]:
        from portdet_paddle.doctor import checks

        return checks()


BACKEND = PaddleBackend()
