"""What one level of the ladder found on one backend, as plain data."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter

from portdet.files import write_text
from portdet.outside import checked, read_json

LEVELS = ("ops", "weights", "forward", "loss", "grad", "step", "steps", "free", "train", "ranks", "power")
GUILTY = ("different", "broken", "missed")
ANEW = "delete it; it is made anew"
FALSE_ALARMS = "false alarms"  # the fact's name; its text: '0 of 30 held-out healthy runs'


def _level(name: str) -> str:
    if name not in LEVELS:
        raise ValueError(f"no level; known: {', '.join(LEVELS)}")
    return name


@dataclass
class Row:
    """One tensor, rule, curve or planted fault.

    name: 'grad/conv.weight' for tensors; 'rule/lr', 'rule/batch' and the like for exact gates. step: of the training,
    at whose state it was looked at; -1: none. status: same (bit for bit), noise, kink (apart on one batch, not on
    others), doubtful, different, broken (an exact gate), unjudged; of planted faults: caught, missed. The figures are
    those of `compare.Finding`; 0 where there are none.
    """

    name: str
    status: str
    words: str = ""
    step: int = -1
    ratio: float = 0.0
    max_rel: float = 0.0
    rel_l2: float = 0.0
    tolerance: float = 0.0
    cosine: float = 1.0
    signed_ulp: float = 0.0
    error: float | None = None
    reference_error: float | None = None

    @property
    def guilty(self) -> bool:
        return self.status in GUILTY

    @property
    def healthy(self) -> bool:
        """Neither guilty nor a kink, whose ratio tells of one batch only."""
        return not self.guilty and self.status != "kink"


@dataclass
class Series:
    """A line to draw, with what healthy runs span around it.

    kind: what is drawn, the chart's title ('loss of each step', 'AP'); name: whose ('torch', 'paddle, seed 1').
    low, high: the envelope, as long as xs, or empty. marks: places on the x axis worth a line, what they are -> x
    ('horizon' -> 7).
    """

    kind: str
    name: str
    xs: list[float]
    ys: list[float]
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    marks: dict[str, float] = field(default_factory=dict)


@dataclass
class Interval:
    """An equivalence test: two one-sided tests at 5 % are the 90 % interval of the mean difference.

    name: what is compared ('AP50 at the end'). mean: candidate less reference, over `runs` paired runs; low, high: the
    interval. verdict: equivalent (all inside of +-margin), different (all outside), inconclusive. power: the chance to
    find two equal systems equivalent with so many runs. needed: runs for a power of 0.8. None: one run says neither.
    """

    name: str
    mean: float
    low: float
    high: float
    margin: float
    runs: int
    verdict: str
    power: float | None = None
    needed: int | None = None


@dataclass
class Planted:
    """A planted fault. first: the guilty name that came first, empty if missed; expected: where it was planted.

    named: whether `first` is there. one_step: whether it changes any number within one step. rules: what published
    rules of comparison say to it, rule -> caught.
    """

    name: str
    expected: str
    caught: bool
    named: bool = False
    first: str = ""
    gate: str = ""
    one_step: bool = True
    rules: dict[str, bool] = field(default_factory=dict)


@dataclass
class Outcome:
    """One level on one backend.

    passed: None where it could not decide. words: the finding in a sentence. first: the first guilty row's name, empty
    if none. checked: how many tensors, rules or runs were judged. ratio: the largest cross/self ratio of the healthy
    rows. seconds: what it took. crashed: what the process printed last, if it died. facts: figures worth a line of
    their own, name -> text; FALSE_ALARMS among them where held-out runs were judged. intervals: of `train`; planted: of
    `power`.
    """

    level: Annotated[str, AfterValidator(_level)]
    backend: str
    passed: bool | None
    words: str
    first: str = ""
    checked: int = 0
    guilty: int = 0
    ratio: float = 0.0
    seconds: float = 0.0
    crashed: str = ""
    rows: list[Row] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    intervals: list[Interval] = field(default_factory=list)
    planted: list[Planted] = field(default_factory=list)

    @classmethod
    def of(cls, level: str, backend: str, rows: Sequence[Row], words: str = "", **more: Any) -> Outcome:
        """With verdict, first guilty row and counts from `rows`."""
        guilty = [row for row in rows if row.guilty]
        ratios = [row.ratio for row in rows if row.healthy and math.isfinite(row.ratio)]
        unsure = not rows or any(row.status == "unjudged" for row in rows)
        return cls(
            level, backend, False if guilty else None if unsure else True, words,
            first=guilty[0].name if guilty else "", checked=len(rows), guilty=len(guilty),
            ratio=max(ratios, default=0.0), rows=list(rows), **more,
        )  # fmt: skip

    @classmethod
    def failed(cls, level: str, backend: str, printed: str) -> Outcome:
        """For a process that crashed: undecided, with its last words."""
        return cls(level, backend, None, "its process could not run to the end", crashed=printed)


def to_plain(outcome: Outcome) -> dict[str, Any]:
    """As JSON has it; numbers that JSON lacks are text."""
    return {key: _plain(value) for key, value in asdict(outcome).items()}


def from_plain(values: Any, where: str = "") -> Outcome:
    """The inverse of `to_plain`: words for numbers that JSON lacks become numbers."""
    return checked(TypeAdapter(Outcome), values, where, ANEW)


def save(path: Path, outcome: Outcome) -> None:
    write_text(path, json.dumps(to_plain(outcome), indent=1) + "\n")


def load(path: Path) -> Outcome:
    """Raises PortdetError for a file that `save` did not write."""
    return read_json(path, TypeAdapter(Outcome), ANEW)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
