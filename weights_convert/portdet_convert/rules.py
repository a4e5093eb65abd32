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
from functools import cached_property
from itertools import islice
from typing import Literal

from portdet.errors import PortdetError
from portdet_convert.files.source import Array, Arrays
from portdet_convert.patterns import Patterns, filled, holes
from portdet_convert.relatives import looks_like

Transform = Literal["same", "transpose"]
# Each is its own inverse.
TRANSFORMS: dict[Transform, Callable[[Array], Array]] = {"same": lambda a: a, "transpose": lambda a: a.T}


@dataclass(frozen=True)
class Rule:
    """Tensor `pattern` of the file is tensor `name` of the model, after `transform`."""

    pattern: str
    name: str
    transform: Transform = "same"

    def __post_init__(self) -> None:
        if holes(self.pattern) != holes(self.name):
            raise PortdetError(f"rule {self.pattern} -> {self.name}: the two sides have different placeholders")


def units(pairs: Iterable[tuple[str, str]], leaves: Iterable[tuple[str, str]]) -> tuple[Rule, ...]:
    """Rules for units of layers: every pair of paths with every pair of leaf names."""
    return tuple(Rule(f"{a}.{leaf}", f"{b}.{name}") for a, b in pairs for leaf, name in leaves)


@dataclass(frozen=True)
class Skip:
    """Tensors of a file that are no weights of the model; they are counted, never silently dropped."""

    pattern: str
    reason: str


class UnknownModel(PortdetError):
    """No naming fits the names of a file."""

    def __init__(self, what: str, *, fix: str = "", where: str = "") -> None:
        advice = "give weights of a model that portdet has, or convert the file without naming one: it keeps its names"
        super().__init__(what, fix=fix or advice, where=where)


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
        if (fit := self._patterns.find(bare)) is None:
            return None
        rule = self.rules[fit[0]]
        found = filled(rule.name, fit[1])
        return (found, rule.transform) if self.source(found) == (bare, rule.transform) else None

    def source(self, name: str) -> tuple[str, Transform] | None:
        """The file's name (without prefix) of the canonical tensor `name`, and the transform on the way there."""
        if (fit := self._names.find(name)) is None:
            return None
        rule = self.rules[fit[0]]
        return filled(rule.pattern, fit[1]), rule.transform

    @cached_property
    def _patterns(self) -> Patterns:
        return Patterns([rule.pattern for rule in self.rules])

    @cached_property
    def _names(self) -> Patterns:
        return Patterns([rule.name for rule in self.rules])

    @cached_property
    def _skips(self) -> Patterns:
        return Patterns([skip.pattern for skip in self.skips])

    @cached_property
    def _refused(self) -> Patterns:
        return Patterns([one.pattern for one in self.refused])

    @cached_property
    def _wrapped(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, sorted(self.prefixes, key=len, reverse=True))))

    def skip(self, name: str) -> str | None:
        """The reason why tensor `name` is no weight, or None."""
        fit = self._skips.find(name)
        return self.skips[fit[0]].reason if fit else None

    def refusal(self, names: Iterable[str]) -> str | None:
        """The reason why a file with these names is another model, or None."""
        fits = (self._refused.find(self._bare(name)) for name in names) if self.refused else ()
        return next((self.refused[fit[0]].reason for fit in fits if fit), None)

    def _bare(self, name: str) -> str:
        wrapper = self._wrapped.match(name)
        return name[wrapper.end() :] if wrapper else name


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
    clash: str = ""

    def require(self) -> Renamed:
        """Itself. Raises `PortdetError` where two tensors of the file claim one canonical name."""
        if self.clash:
            raise PortdetError(self.clash, fix="take one of them out of the file")
        return self


def rename(naming: Naming, arrays: Mapping[str, Array]) -> Renamed:
    """Put every array under its canonical name, skip it with a reason, or list it as unknown; `clash` says which two
    tensors claim one canonical name, if any do: of these the first is taken."""
    out = Renamed(naming)
    for name, array in arrays.items():
        reason = "text, not a tensor" if array.dtype.kind == "U" else naming.skip(name)
        found = naming.canonical(name)
        if reason is not None:
            out.skipped[name] = reason
        elif found is None:
            out.unknown.append(name)
        elif found[0] in out.origin:
            first = out.origin[found[0]][0]
            out.clash = out.clash or f"'{name}' and '{first}' are both '{found[0]}' ({naming.name} names)"
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
        looks = f"; it looks like {title}" if (title := looks_like(arrays)) else ""
        raise UnknownModel(f"{fit} of its {len(arrays)} names fits the model (tried {tried}): {_few(arrays)}{looks}")
    return best.require()


TRUNK = "backbone."
"""How the canonical names of a backbone begin. Many models share one, so none is told by it."""


def strangers(found: Renamed, wanted: Collection[str]) -> str:
    """What a file holds that is not of the model with the names `wanted`, '' if that is the model.

    A model is told by what only it has, its neck and head: of those the file must hold more than of anything else. A
    backbone alone is one where nearly nothing else is in the file: a twentieth may be damage, which is said elsewhere.
    """
    names = set(wanted)
    trunk = sum(name in names for name in found.arrays if name.startswith(TRUNK))
    own = sum(name in names for name in found.arrays if not name.startswith(TRUNK))
    others = [*found.unknown, *(found.origin[name][0] for name in found.arrays if name not in names)]
    if len(others) <= max(own, trunk / 20):
        return ""
    title, said = looks_like(others), f"{len(others)} of its tensors are of another model: {_few(others)}"
    looks = f"it looks like {title}" if title else "it is of another model"
    shared = f", whose backbone has names of this one's ({trunk} tensors)" if trunk else ""
    return f"{looks}{shared}; {said}"


def _few(names: Collection[str]) -> str:
    return ", ".join([*islice(names, 3), *(["..."] if len(names) > 3 else [])])


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


_COMPARED = 1000


def explain(missing: Collection[str], unknown: Collection[str], limit: int = 3) -> str:
    """What was not filled and not used, with the closest name of the other side for the first few."""
    lines = [f"{name} is missing{_hint(name, unknown)}" for name in list(missing)[:limit]]
    lines += [f"{name} is not of this model{_hint(name, missing)}" for name in list(unknown)[:limit]]
    rest = max(len(missing) - limit, 0) + max(len(unknown) - limit, 0)
    return "; ".join(lines + ([f"and {rest} more"] if rest else []))


def _hint(name: str, others: Collection[str]) -> str:
    # Of 100,000 names each takes 20 us; a name that was mistyped stands among the first of those left over.
    close = difflib.get_close_matches(name, list(islice(others, _COMPARED)), n=1, cutoff=0.5)
    return f" (closest: {close[0]})" if close else ""
