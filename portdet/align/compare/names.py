"""One name for what two programs call differently: by a dictionary, or by the order in which tensors appear."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from numpy.typing import NDArray

from portdet.errors import PortdetError

Array = NDArray[Any]


class Renamed(Mapping[str, Array]):
    """A dump under other names; tensors that `names` leaves out keep theirs. Nothing is read before it is asked for.

    Raises PortdetError where two tensors would have one name.
    """

    def __init__(self, dump: Mapping[str, Array], names: Mapping[str, str]) -> None:
        self._dump = dump
        self._theirs: dict[str, str] = {}
        for theirs in dump:
            name = names.get(theirs, theirs)
            if name in self._theirs:
                raise PortdetError(
                    f"'{theirs}' and '{self._theirs[name]}' would both be '{name}'", fix="give each a name of its own"
                )
            self._theirs[name] = theirs

    def __getitem__(self, name: str) -> Array:
        return self._dump[self._theirs[name]]

    def __contains__(self, name: object) -> bool:
        return name in self._theirs

    def __iter__(self) -> Iterator[str]:
        return iter(self._theirs)

    def __len__(self) -> int:
        return len(self._theirs)


class Some(Mapping[str, Array]):
    """The tensors of a run whose names `wanted` accepts."""

    def __init__(self, run: Mapping[str, Array], wanted: Callable[[str], bool]) -> None:
        self._run, self._names = run, {name: None for name in run if wanted(name)}

    def __getitem__(self, name: str) -> Array:
        return self._run[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def by_position(reference: Mapping[str, Array], other: Mapping[str, Array]) -> dict[str, str]:
    """The other program's names -> the reference's, for `Renamed`: within each level (what stands before the first
    '/') the longest runs of equal shapes in the same order; what has no counterpart is left out.

    A guess, to be read before it is trusted: two neighbours of one shape may stand the other way round.
    """
    found: dict[str, str] = {}
    ours, theirs = _levels(reference), _levels(other)
    for level in ours:
        here, there = ours[level], theirs.get(level, [])
        shapes = [reference[name].shape for name in here], [other[name].shape for name in there]
        for block in SequenceMatcher(None, *shapes, autojunk=False).get_matching_blocks():
            found |= dict(zip(there[block.b : block.b + block.size], here[block.a : block.a + block.size], strict=True))
    return found


def shared(*dumps: Mapping[str, Array]) -> list[Some]:
    """The tensors that all have, in each one's order: for programs whose containers, not whose layers, differ."""
    names = set(dumps[0]).intersection(*dumps[1:])
    return [Some(dump, names.__contains__) for dump in dumps]


def _levels(dump: Mapping[str, Array]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for name in dump:
        out.setdefault(name.partition("/")[0], []).append(name)
    return out
