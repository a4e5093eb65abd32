"""What a planted fault is: something that goes wrong in real ports, put where no framework knows of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

from portdet.align.ladder.fault_session import Edge
from portdet.models import Detector
from portdet.session import Batch, Recipe, StepValues


class Subject(Protocol):
    """What a fault is planted in; `Case` is one."""

    @property
    def detector(self) -> Detector: ...

    @property
    def recipe(self) -> Recipe: ...

    def batch(self, step: int) -> Batch: ...

    def values(self, step: int) -> StepValues: ...


@dataclass(frozen=True)
class Planting:
    """A fault in one detector and its training.

    first: patterns (of `fnmatch`) of the names that may be found guilty first. detector, recipe: in place of the
    subject's own. values: likewise, by step. edge: what goes wrong between the training loop and the session. since:
    the first training step that shows it.
    """

    first: tuple[str, ...]
    detector: Detector | None = None
    recipe: Recipe | None = None
    values: Callable[[int], StepValues] | None = None
    edge: Edge | None = None
    since: int = 0

    def names(self, found: str) -> bool:
        """Whether this is the right place."""
        return any(fnmatchcase(found, pattern) for pattern in self.first)

    @property
    def expected(self) -> str:
        """The right place in words."""
        return self.first[0] + (f" (or {len(self.first) - 1} other names)" if len(self.first) > 1 else "")


@dataclass(frozen=True)
class Fault:
    """One fault. real: the real bug that it stands for, with a report of it where there is one.

    where: graph, recipe, step (what the host decides for each) or edge (between loop and session). plant: None for a
    detector or training that has no such place.
    """

    name: str
    real: str
    where: str
    plant: Callable[[Subject], Planting | None]


def applicable(bank: Sequence[Fault], subject: Subject) -> list[tuple[Fault, Planting]]:
    """The faults that a subject can have, planted."""
    planted = [(fault, fault.plant(subject)) for fault in bank]
    return [(fault, one) for fault, one in planted if one is not None]
