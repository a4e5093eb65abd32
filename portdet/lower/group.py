"""Instances with equal text become one class or function; what differs between them becomes its arguments."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Group:
    """One generated class or function. `configs` are the static arguments of each instance in the spec.

    `args`: argument name -> its value in each instance, in the order in which they were needed.
    """

    base: str
    configs: Sequence[Mapping[str, Any]]
    name: str = ""
    args: dict[str, list[Any]] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)  # arguments that a method needs: kept as attributes

    def resolve(self, lines: Sequence[str], holes: Sequence[Sequence[tuple[str, Any]]], *, method: bool) -> list[str]:
        """Fill the holes of the shared text. holes: for each instance, its (hint, value) list."""

        def fill(match: re.Match[str]) -> str:
            number = int(match.group(1))
            hint = holes[0][number][0]
            return self.text(hint, [instance[number][1] for instance in holes], method=method)

        return [re.sub(r"\0(\d+)\0", fill, line) for line in lines]

    def text(self, hint: str, values: list[Any], *, method: bool = False) -> str:
        """Source of a value: a constant, a field of the spec, simple arithmetic on one, or an argument of its own."""
        if all(type(v) is type(values[0]) and v == values[0] for v in values):
            return repr(values[0])
        for name, known in self._fields():
            if known == values:
                return self._use(name, known, method)
        if all(isinstance(v, tuple) and len(v) == len(values[0]) for v in values):
            parts = [self.text(f"{hint}{i}", [v[i] for v in values], method=method) for i in range(len(values[0]))]
            return "(" + ", ".join(parts) + ("," if len(parts) == 1 else "") + ")"
        for name, known in self._fields():
            if relation := _relation(known, values):
                return relation.format(self._use(name, known, method))
        name = hint
        while name in self.args and self.args[name] != values:
            name += "_"
        return self._use(name, values, method)

    def _fields(self) -> list[tuple[str, list[Any]]]:
        names = [name for name in self.configs[0] if all(name in c for c in self.configs)]
        return [(name, [c[name] for c in self.configs]) for name in names]

    def _use(self, name: str, values: list[Any], method: bool) -> str:
        self.args.setdefault(name, values)
        if method and name not in self.stored:
            self.stored.append(name)
        return f"self.{name}" if method else name

    def ordered(self) -> list[str]:
        """Argument names in the order of the spec's own signature, others last."""
        fields = [name for name, _ in self._fields()]
        return sorted(self.args, key=lambda n: fields.index(n) if n in fields else len(fields))


def _relation(known: list[Any], values: list[Any]) -> str:
    """`{0} // 2`, `{0} * 2`, `{0} + 3`: an expression of one field that gives every value."""
    pairs = list(zip(known, values, strict=True))
    if not all(type(k) is int and type(v) is int for k, v in pairs) or len(set(known)) < 2:
        return ""
    if all(v == k // 2 for k, v in pairs):
        return "{0} // 2"
    for factor in (2, 3, 4):
        if all(v == k * factor for k, v in pairs):
            return f"{{0}} * {factor}"
    offset = values[0] - known[0]
    if all(v - k == offset for k, v in pairs):
        return f"{{0}} + {offset}" if offset > 0 else f"{{0}} - {-offset}"
    return ""


def name_groups(groups: Sequence[Group]) -> None:
    """Name variants of one class for what tells them apart: ConvNormRelu, ConvNormLeakyRelu; else by number."""
    if len(groups) == 1:
        groups[0].name = groups[0].base
        return
    first = groups[0].configs[0]
    fields = [n for n in first if all(n in c for g in groups for c in g.configs)]
    fields.sort(key=lambda n: not isinstance(first[n], str))  # words tell more than numbers
    for chosen in (*itertools.combinations(fields, 1), *itertools.combinations(fields, 2)):
        labels = [{tuple(c[f] for f in chosen) for c in group.configs} for group in groups]
        if all(len(label) == 1 for label in labels) and len(set.union(*labels)) == len(groups):
            for group, label in zip(groups, labels, strict=True):
                group.name = group.base + "".join(_word(f, v) for f, v in zip(chosen, label.pop(), strict=True))
            return
    for number, group in enumerate(groups, start=1):
        group.name = group.base + (str(number) if number > 1 else "")


def _word(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return _camel(name) if value else f"No{_camel(name)}"
    return _camel(value) if isinstance(value, str) else f"{_camel(name)}{value}".replace(".", "_")


def _camel(text: str) -> str:
    return "".join(part.capitalize() for part in text.split("_"))
