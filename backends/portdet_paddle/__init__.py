"""The Paddle backend. paddle is imported when a session is opened."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from portdet.lower.target import Target
from portdet.session import Arrays, Check, MethodCall, Options, Recipe, Session, Source
from portdet_paddle.launch import LAUNCHER
from portdet_paddle.target import TARGET


class PaddleBackend:
    """Paddle on cpu, gpu and npu (paddle-custom-npu)."""

    name = "paddle"
    target = TARGET
    other_precisions: Mapping[str, Target] = MappingProxyType({})
    modes: tuple[str, ...] = ("eager", "compiled")
    default_mode = "eager"
    known_failures: Mapping[str, str] = MappingProxyType({})
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
