"""Which line of the spec is running: for errors, and for the names of generated variables."""

from __future__ import annotations

import ast
import functools
import sys
from pathlib import Path

from portdet.errors import PortdetError

_MACHINERY = tuple(str(Path(__file__).parents[1] / part) for part in ("ir", "ops", "spec/module", "spec/function"))


def spec_place() -> tuple[str, int]:
    """File and line of the spec that is running: the nearest frame outside the tracing machinery."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_MACHINERY):
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def spec_error(what: str, fix: str) -> PortdetError:
    """An error that names the spec's file and line."""
    file, line = spec_place()
    return PortdetError(what, fix=fix, where=f"{file}:{line}")


@functools.cache
def assigned_names(file: str) -> dict[int, tuple[str, ...]]:
    """Line -> names that the statement on it assigns, so that generated variables keep the spec's names."""
    found: dict[int, tuple[str, ...]] = {}
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return found
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            if all(isinstance(part, ast.Name) for part in parts):
                for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                    found[line] = tuple(part.id for part in parts if isinstance(part, ast.Name))
    return found
