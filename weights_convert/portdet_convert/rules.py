"""Rules that rename tensors between a file and the canonical names, both ways.

    Rule("{unit}.1.gamma", "{unit}.norm.weight")

`{unit}` stands for any text, `{i:[0-9]+}` for what the expression says; both sides have the same placeholders, so a
rule reads backwards too. The first rule that fits a name, and gives that name back when read backwards, counts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Literal

from portdet.errors import PortdetError
from portdet_convert.files.source import Array, Arrays

Transform = Literal["same", "transpose"]
# Each is its own inverse.
TRANSFORMS: dict[Transform, Callable[[Array], Array]] = {"same": lambda a: a, "transpose": lambda a: a.T}
_HOLE = re.compile(r"{(\w+)(?::([^}]+))?}")


@dataclass(frozen=True)
class Rule:
    """Tensor `pattern` of the file is tensor `name` of the model, after `transform`."""

    pattern: str
    name: str
    transform: Transform = "same"

    def __post_init__(self) -> None:
        if set(_HOLE.findall(self.pattern)) != set(_HOLE.findall(self.name)):
            raise PortdetError(f"rule {self.pattern} -> {self.name}: the two sides have different placeholders")


def units(pairs: Iterable[tuple[str, str]], leaves: Iterable[tuple[str, str]]) -> tuple[Rule, ...]:
    """Rules for units of layers: every pair of paths with every pair of leaf names."""
    return tuple(Rule(f"{a}.{leaf}", f"{b}.{name}") for a, b in pairs for leaf, name in leaves)


@cache
def _compile(template: str) -> re.Pattern[str]:
    parts, position = [], 0
    for hole in _HOLE.finditer(template):
        parts += [re.escape(template[position : hole.start()]), f"(?P<{hole[1]}>{hole[2] or '.+'})"]
        position = hole.end()
    return re.compile("".join([*parts, re.escape(template[position:])]))


def _rewrite(pattern: str, template: str, name: str) -> str | None:
    match = _compile(pattern).fullmatch(name)
    return _HOLE.sub(lambda hole: match[hole[1]], template) if match else None


@dataclass(frozen=True)
class Skip:
    """Tensors of a file that are no weights of the model; they are counted, never silently dropped."""

    pattern: str
    reason: str

    def fits(self, name: str) -> bool:
        """Whether the pattern covers the whole name."""
        return _compile(self.pattern).fullmatch(name) is not None


class UnknownModel(PortdetError):
    """No naming fits the names of a file."""


@dataclass(frozen=True)
class Naming:
    """How one program names the tensors of a model. A name may carry one of the `prefixes` of wrapper modules.

    A file with a tensor that `refused` fits is another model whose tensors have the same shapes; its reason says what
    differs. `note` is worth knowing about every other file of these names. `written` is the prefix of names in files
    that portdet writes.
    """

    name: str
    rules: tuple[Rule, ...]
    skips: tuple[Skip, ...] = ()
    prefixes: tuple[str, ...] = ()
    refused: tuple[Skip, ...] = ()
    note: str = ""
    written: str = ""

    def canonical(self, name: str) -> tuple[str, Transform] | None:
        """Canonical name and transform of the file's tensor `name`; None if no rule fits."""
        bare = self._bare(name)
        found = self._forward.find(bare)
        return found if found and self.source(found[0]) == (bare, found[1]) else None

    def source(self, name: str) -> tuple[str, Transform] | None:
        """The file's name (without prefix) of the canonical tensor `name`, and the transform on the way there."""
        return self._backward.find(name)

    @cached_property
    def _forward(self) -> _Index:
        return _Index([(rule.pattern, rule.name, rule.transform) for rule in self.rules])

    @cached_property
    def _backward(self) -> _Index:
        return _Index([(rule.name, rule.pattern, rule.transform) for rule in self.rules])

    def skip(self, name: str) -> str | None:
        """The reason why tensor `name` is no weight, or None."""
        return next((skip.reason for skip in self.skips if skip.fits(name)), None)

    def refusal(self, names: Iterable[str]) -> str | None:
        """The reason why a file with these names is another model, or None."""
        bare = [self._bare(name) for name in names]
        return next((one.reason for one in self.refused if any(one.fits(name) for name in bare)), None)

    def _bare(self, name: str) -> str:
        return name[len(max((p for p in self.prefixes if name.startswith(p)), key=len, default="")) :]


class _Index:
    """Rules in one direction. Those without placeholders, nearly all of a long list, are looked up in a table."""

    def __init__(self, rules: Iterable[tuple[str, str, Transform]]) -> None:
        self.exact: dict[str, tuple[int, str, Transform]] = {}
        self.open: list[tuple[int, str, str, Transform]] = []
        for number, (pattern, template, transform) in enumerate(rules):
            if _HOLE.search(pattern):
                self.open.append((number, pattern, template, transform))
            else:
                self.exact.setdefault(pattern, (number, template, transform))

    def find(self, name: str) -> tuple[str, Transform] | None:
        """By the first rule that fits."""
        exact = self.exact.get(name)
        for number, pattern, template, transform in self.open:
            if exact and number > exact[0]:
                break
            if (found := _rewrite(pattern, template, name)) is not None:
                return found, transform
        return exact and exact[1:]


def suffixes(naming: Naming, prefix: str, *skips: Skip) -> Naming:
    """The names of a file that holds the part under `prefix` alone, and without it: ppdet's files of backbones.

    PaddleDetection takes a tensor whose name is the end of one of the model's, after a dot.
    """
    rules = (rule for rule in naming.rules if rule.pattern.startswith(prefix))
    bare = tuple(replace(rule, pattern=rule.pattern.removeprefix(prefix)) for rule in rules)
    name = f"{naming.name} {prefix.strip('.')}"
    return replace(naming, name=name, rules=bare, skips=(*naming.skips, *skips))


@dataclass
class Renamed:
    """Arrays under canonical names, where each came from (target -> (source, transform)), and what to know of them."""

    naming: Naming
    arrays: Arrays = field(default_factory=dict)
    origin: dict[str, tuple[str, Transform]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def rename(naming: Naming, arrays: Mapping[str, Array]) -> Renamed:
    """Put every array under its canonical name, skip it with a reason, or list it as unknown.

    Raises `PortdetError` when two tensors of the file claim one canonical name.
    """
    out = Renamed(naming)
    for name, array in arrays.items():
        reason = "text, not a tensor" if array.dtype.kind == "U" else naming.skip(name)
        found = naming.canonical(name)
        if reason is not None:
            out.skipped[name] = reason
        elif found is None:
            out.unknown.append(name)
        elif found[0] in out.origin:
            raise PortdetError(f"'{name}' and '{out.origin[found[0]][0]}' are both '{found[0]}' ({naming.name} names)")
        else:
            out.origin[found[0]] = (name, found[1])
            out.arrays[found[0]] = TRANSFORMS[found[1]](array)
    return out


def recognise(
    arrays: Mapping[str, Array], namings: Iterable[Naming], expected: Callable[[Collection[str]], Collection[str]]
) -> Renamed:
    """`rename` by the naming that fills most names of the model; `expected` gives these from the names found.

    Raises `UnknownModel` that shows names when no naming fits half of them, and `PortdetError` for a file of optimiser
    state and for one of another model that a naming refuses.
    """
    candidates = [rename(naming, arrays) for naming in namings]
    scores = [len(set(c.arrays) & set(expected(c.arrays))) for c in candidates]
    best = candidates[scores.index(max(scores))]
    reason = best.naming.refusal(arrays)
    if reason is not None and max(scores):
        raise PortdetError(
            f"is {best.naming.name}'s model, whose weights do not transfer although their shapes agree: {reason}",
            fix="give weights of darknet, mindspore-ai/models or PaddleDetection",
        )
    if any(c.skipped and not c.arrays and not c.unknown for c in candidates):
        raise PortdetError(
            f"holds the state of an optimiser and no weights: {_few(arrays)}",
            fix="give the file of weights that was written beside it (NAME.pdparams for NAME.pdopt)",
        )
    if 2 * max(scores) < len(best.arrays) + len(best.unknown) or not max(scores):
        fit = f"only {max(scores)}" if max(scores) else "none"
        tried = ", ".join(dict.fromkeys(candidate.naming.name for candidate in candidates))
        raise UnknownModel(
            f"{fit} of its {len(arrays)} names fits the model (tried {tried}): {_few(arrays)}",
            fix="check that the file belongs to this model",
        )
    return best


def _few(names: Collection[str]) -> str:
    return ", ".join([*list(names)[:3], *(["..."] if len(names) > 3 else [])])


KEPT = Naming("no known", (Rule("{path}", "{path}"),))
"""For files of models that are not known: every tensor keeps its name."""


def restore(naming: Naming, arrays: Mapping[str, Array]) -> tuple[Arrays, dict[str, str]]:
    """Canonical arrays under the names of `naming`, and canonical -> new name. The inverse of `rename`.

    Raises `PortdetError` for a tensor that no rule covers and for two that get one name.
    """
    out: Arrays = {}
    names: dict[str, str] = {}
    for name, array in arrays.items():
        found = naming.source(name)
        if found is None or naming.written + found[0] in out:
            raise PortdetError(f"'{name}' has no name of its own in {naming.name} names")
        names[name] = naming.written + found[0]
        out[names[name]] = TRANSFORMS[found[1]](array)
    return out, names


def explain(missing: Collection[str], unknown: Collection[str], limit: int = 3) -> str:
    """What was not filled and not used, with the closest name of the other side for the first few."""
    lines = [f"{name} is missing{_hint(name, unknown)}" for name in list(missing)[:limit]]
    lines += [f"{name} is not of this model{_hint(name, missing)}" for name in list(unknown)[:limit]]
    rest = max(len(missing) - limit, 0) + max(len(unknown) - limit, 0)
    return "; ".join(lines + ([f"and {rest} more"] if rest else []))


def _hint(name: str, others: Collection[str]) -> str:
    close = difflib.get_close_matches(name, others, n=1, cutoff=0.5)
    return f" (closest: {close[0]})" if close else ""
