"""Generated source as a module of this process. What runs is the text in memory: nothing in a folder is imported."""

from __future__ import annotations

import importlib.util
import itertools
import linecache
import os
import sys
from importlib.abc import InspectLoader
from types import CodeType, ModuleType

from portdet.session import Source

_numbers = itertools.count()


def load(source: Source) -> ModuleType:
    """A real module: MindSpore's graph mode and Paddle's to_static ask `inspect` for the text of its functions.

    `inspect` asks `linecache`, which is given the text here, as of no file: it never looks whether one has changed.
    """
    path = os.path.abspath(source.path)
    linecache.cache[path] = (len(source.text), None, source.text.splitlines(keepends=True), path)
    name = f"portdet_generated_{source.path.stem}_{next(_numbers)}"
    spec = importlib.util.spec_from_loader(name, _Loader(source.text, path), origin=path)
    assert spec is not None
    spec.has_location = True  # gives the module its `__file__`
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


class _Loader(InspectLoader):
    """One module, from memory."""

    def __init__(self, text: str, path: str) -> None:
        self.text, self.path = text, path

    def get_source(self, fullname: str) -> str:
        return self.text

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.text, self.path)

    def is_package(self, fullname: str) -> bool:
        return False
