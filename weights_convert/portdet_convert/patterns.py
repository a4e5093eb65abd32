"""Templates with placeholders, `{unit}.{i:[0-9]+}.weight`: many of them matched as one expression.

`{unit}` stands for any text, `{i:[0-9]+}` for what the expression says. A file may hold 100,000 names and a list of
rules has some hundred templates, so a name meets one expression and one table, not each template in turn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

_HOLE = re.compile(r"{(\w+)(?::([^}]+))?}")


def holes(template: str) -> set[tuple[str, str]]:
    """Name and expression of each placeholder."""
    return set(_HOLE.findall(template))


def filled(template: str, values: dict[str, str]) -> str:
    """The template with a text in place of each placeholder."""
    return _HOLE.sub(lambda hole: values[hole[1]], template)


class Patterns:
    """A list of templates: `find` gives the first that covers a whole name."""

    def __init__(self, templates: Sequence[str]) -> None:
        self._templates = templates

    @cached_property
    def _exact(self) -> dict[str, int]:
        """Those without placeholders, nearly all of a long list."""
        plain = [(template, n) for n, template in enumerate(self._templates) if not holes(template)]
        return dict(reversed(plain))

    @cached_property
    def _any(self) -> re.Pattern[str]:
        """Those with placeholders, the n-th in a group `n7` and its placeholders in groups `n7_unit`."""
        parts = []
        for number, template in enumerate(self._templates):
            if holes(template):
                parts.append(f"(?P<n{number}>{_expression(template, f'n{number}_')})")
        return re.compile("|".join(parts) or "(?!)")

    def find(self, name: str) -> tuple[int, dict[str, str]] | None:
        """Number of the first template that fits, and what its placeholders stand for."""
        exact = self._exact.get(name)
        match = self._any.fullmatch(name)
        if match is None or match.lastgroup is None:
            return None if exact is None else (exact, {})
        number = int(match.lastgroup[1:])  # the last group that closed, which is the outermost
        if exact is not None and exact < number:
            return exact, {}
        return number, {key: match[f"n{number}_{key}"] for key, _ in holes(self._templates[number])}


def _expression(template: str, prefix: str) -> str:
    parts, position = [], 0
    for hole in _HOLE.finditer(template):
        parts += [re.escape(template[position : hole.start()]), f"(?P<{prefix}{hole[1]}>{hole[2] or '.+'})"]
        position = hole.end()
    return "".join([*parts, re.escape(template[position:])])
