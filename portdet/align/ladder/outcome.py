"""What one level of the ladder found on one backend, as plain data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from portdet.errors import PortdetError
from portdet.files import write_text

LEVELS = ("ops", "weights", "forward", "loss", "grad", "step", "steps", "free", "train", "ranks", "power")
GUILTY = ("different", "broken", "missed")


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


@dataclass
class Series:
    """A line to draw, with what healthy runs span around it.

    kind: what is drawn, the chart's title ('loss of each step', 'AP'); name: whose ('torch', 'paddle, seed 1').
    low, high: the envelope, as long as xs, or empty.
    """

    kind: str
    name: str
    xs: list[float]
    ys: list[float]
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)


@dataclass
class Outcome:
    """One level on one backend.

    passed: None where it could not decide. words: the finding in a sentence. first: the first guilty row's name, empty
    if none. checked: how many tensors, rules or runs were judged. ratio: the largest cross/self ratio of the healthy
    rows. seconds: what it took. crashed: what the process printed last, if it died. facts: figures worth a line of
    their own, name -> text.
    """

    level: str
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

    @classmethod
    def of(cls, level: str, backend: str, rows: Sequence[Row], words: str = "", **more: Any) -> Outcome:
        """With verdict, first guilty row and counts from `rows`."""
        guilty = [row for row in rows if row.guilty]
        ratios = [row.ratio for row in rows if not row.guilty and math.isfinite(row.ratio)]
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


def from_plain(values: Mapping[str, Any]) -> Outcome:
    """The inverse of `to_plain`."""
    numbers = {**values}
    numbers["rows"] = [Row(**{k: _number(k, v) for k, v in row.items()}) for row in values.get("rows", [])]
    numbers["series"] = [Series(**series) for series in values.get("series", [])]
    return Outcome(**numbers)


def save(path: Path, outcome: Outcome) -> None:
    write_text(path, json.dumps(to_plain(outcome), indent=1) + "\n")


def load(path: Path) -> Outcome:
    """Raises PortdetError for a file that `save` did not write."""
    try:
        return from_plain(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise PortdetError(
            f"no outcome of a level: {error}", where=str(path), fix="delete it; it is made anew"
        ) from None


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _number(key: str, value: Any) -> Any:
    return float(value) if isinstance(value, str) and key not in ("name", "status", "words") else value
