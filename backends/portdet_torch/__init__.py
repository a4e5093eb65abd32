"""The PyTorch backend. torch is imported when a session is opened."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from portdet.lower.target import Target
from portdet.session import Arrays, Check, Inexact, MethodCall, Options, Recipe, Session, Source
from portdet_torch.launch import LAUNCHER
from portdet_torch.target import TARGET, TARGET64


class TorchBackend:
    """PyTorch on cpu, cuda and npu (torch_npu)."""

    name = "torch"
    target = TARGET
    other_precisions: Mapping[str, Target] = MappingProxyType({"float64": TARGET64})
    modes: tuple[str, ...] = ("eager", "compiled")
    default_mode = "eager"
    known_failures: Mapping[str, str | Inexact] = MappingProxyType({})
    file_format = "pth"
    loader = "torch.load"
    launcher = LAUNCHER

    def open_session(
        self, source: Source, class_name: str, recipe: Recipe, names: Mapping[str, str], options: Options
    ) -> Session:
        # Waiting threads that spin hold a core: with a loader worker beside two threads a step takes ten times as long
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("GOMP_SPINCOUNT", "0")
        from portdet_torch.session import TorchSession

        return TorchSession(source, class_name, recipe, names, options)

    def differentiate(self, call: MethodCall, options: Options) -> tuple[Arrays, Arrays]:
        from portdet_torch.method import differentiate

        return differentiate(call, options)

    def load_file(self, path: Path) -> Arrays:
        from portdet_torch.files import load_file

        return load_file(path)

    def doctor(self) -> list[Check]:
        from portdet_torch.doctor import checks

        return checks()


BACKEND = TorchBackend()
