"""Pieces of source text: holes for values that may differ between instances, and brackets by precedence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from portdet.ir.graph import Size

ATOM, UNARY, PRODUCT, SUM, BITS, COMPARE = 9, 6, 5, 4, 3, 2
"""How tightly Python binds what an expression's outermost operator joins."""

INFIX = {
    "add": ("+", SUM), "sub": ("-", SUM), "mul": ("*", PRODUCT), "div": ("/", PRODUCT),
    "less": ("<", COMPARE), "greater": (">", COMPARE), "equal": ("==", COMPARE), "logical_and": ("&", BITS),
}  # fmt: skip


@dataclass
class Holes:
    """The static values of one instance, in the order in which its text mentions them.

    A hole's text is `\\0number\\0`. Instances with equal text share a class; then each hole becomes a constant, a
    constructor argument, or an expression of one.
    """

    values: list[tuple[str, Any]] = field(default_factory=list)

    def add(self, hint: str, value: Any) -> str:
        self.values.append((hint, value))
        return f"\0{len(self.values) - 1}\0"


@dataclass(frozen=True)
class Attrs:
    """Static values for a template: `attrs["stride"]` is a hole, `attrs.raw` the values themselves."""

    raw: Mapping[str, Any]
    holes: Holes
    size: Callable[[Size], str]

    def __getitem__(self, name: str) -> str:
        return self.hole(name, self.raw[name])

    def item(self, name: str, index: int) -> str:
        """A hole for one item of a tuple."""
        return self.hole(name, self.raw[name][index])

    def hole(self, hint: str, value: Any) -> str:
        """Text of a static value; sizes inside are written out, everything else becomes holes."""
        if isinstance(value, Size):
            return self.size(value)
        if isinstance(value, tuple) and _has_size(value):
            return sequence([self.hole(hint, v) for v in value])
        return self.holes.add(hint, value)


@dataclass(frozen=True)
class Args:
    """The arguments of an op's text: `a[0]` may be used between commas, `a.tight(0)` before a dot or bracket.

    spare: the first argument is a tensor of its own, that nothing else reads, not even a gradient.
    """

    texts: Sequence[Any]  # (text, precedence), or a list of them for a tuple argument
    attrs: Attrs
    spare: bool = False

    def __getitem__(self, index: int) -> str:
        item = self.texts[index]
        return sequence([t for t, _ in item], brackets="[]") if isinstance(item, list) else str(item[0])

    def tight(self, index: int) -> str:
        text, precedence = self.texts[index]
        return bracket(text, precedence, ATOM)


def _has_size(value: Any) -> bool:
    return isinstance(value, Size) or (isinstance(value, tuple) and any(_has_size(v) for v in value))


def bracket(text: str, precedence: int, needed: int) -> str:
    """Brackets around what binds less tightly than its place needs."""
    return f"({text})" if precedence < needed else text


def sequence(items: Sequence[str], brackets: str = "()") -> str:
    """Text of a tuple or list."""
    comma = "," if len(items) == 1 and brackets == "()" else ""
    return brackets[0] + ", ".join(items) + comma + brackets[1]


def index_text(index: tuple[Any, ...]) -> str:
    """`[..., 0:2]` from a getitem index."""
    parts = []
    for part in index:
        if isinstance(part, slice):
            parts.append(f"{'' if part.start is None else part.start}:{'' if part.stop is None else part.stop}")
        else:
            parts.append("..." if part is Ellipsis else str(part))
    return "[" + ", ".join(parts) + "]"


def wrap(line: str, indent: int, width: int = 110) -> list[str]:
    """Break a long line at the commas of its outermost bracket, filling lines, and again inside."""
    pad = " " * indent
    if indent + len(line) <= width:
        return [pad + line]
    spans = [span for span in _spans(line) if span[1] - span[0] > 8]
    if not spans:
        return [pad + line]
    start, end = max(spans, key=lambda span: span[1] - span[0])
    body: list[str] = []
    for part in _parts(line[start + 1 : end]):
        if body and len(body[-1]) + 1 + len(part) <= width - indent - 4:
            body[-1] += f" {part}"
        else:
            body.append(part)
    inner = [out for part in body for out in wrap(part, indent + 4, width)]
    return [pad + line[: start + 1], *inner, *wrap(line[end:], indent, width)]


def _spans(line: str) -> list[tuple[int, int]]:
    """Outermost bracket pairs: positions of the opening and the closing one."""
    found, depth, start = [], 0, 0
    for position, char in enumerate(line):
        if char in "([{":
            start = position if depth == 0 else start
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth == 0:
                found.append((start, position))
    return found


def _parts(text: str) -> list[str]:
    """Split at top-level commas, which stay with the part before them."""
    parts, depth, last = [], 0, 0
    for position, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            parts.append(text[last : position + 1].strip())
            last = position + 1
    return [*parts, text[last:].strip()] if text[last:].strip() else parts
