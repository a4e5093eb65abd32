"""Stand-ins for packages that a program imports at its top and what we run of it never calls."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

UNUSED = (
    "Cython", "imgaug", "lap", "loguru", "motmetrics", "numba", "pandas", "pkg_resources", "pyclipper", "requests",
    "shapely", "sklearn", "tabulate", "tensorboard", "tensorboardX", "terminaltables", "thop", "torchvision", "tqdm",
    "typeguard", "visualdl",
)  # fmt: skip


class Nothing:
    """Any class or function of an absent package; as a decorator it returns what it decorates."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __call__(self, *given: Any, **_: Any) -> Any:
        return given[0] if given else self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing()


class Package(ModuleType):
    """An absent package, or a part of one."""

    ops: Any  # of torchvision

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing() if name == "logger" else Nothing


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """For the end of `sys.meta_path`: asked last, so that what is installed is used."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        return importlib.machinery.ModuleSpec(name, self) if name.partition(".")[0] in UNUSED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return Package(spec.name)

    def exec_module(self, module: ModuleType) -> None: ...


@contextmanager
def allowed() -> Iterator[None]:
    """While open, a package of UNUSED that is not installed can be imported; torch, at its exit, must not find them."""
    finder = Finder()
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, module in sys.modules.items() if isinstance(module, Package)]:
            del sys.modules[name]
