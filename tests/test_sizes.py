"""Files hold one idea: at most 400 lines; functions at most 60."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE_LINES, FUNCTION_LINES = 400, 60


def sources() -> Iterator[Path]:
    for folder in ("portdet", "backends", "weights_convert", "tests"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def long_functions(source: str, limit: int) -> list[tuple[str, int]]:
    """Name and lines of each function that has more; its decorators and nested functions count."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            lines = (node.end_lineno or node.lineno) - first + 1
            if lines > limit:
                found.append((node.name, lines))
    return found


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert len(lengths) > 50
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > FILE_LINES} == {}


def test_no_function_is_too_long() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {name} has {lines} lines"
        for path in sources()
        for name, lines in long_functions(path.read_text(encoding="utf-8"), FUNCTION_LINES)
    ]
    assert found == []


def test_a_long_function_is_found() -> None:
    source = "@cache\ndef long():\n" + "    x = 1\n" * 59
    assert long_functions(source, 60) == [("long", 61)]
    assert long_functions(source, 61) == []
