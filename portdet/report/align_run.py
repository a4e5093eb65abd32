"""What an alignment measured, as plain data: the page, the console table and other programs read the same JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from portdet.files import write_text
from portdet.outside import below, checked, parse_json, read_json
from portdet.report.align_reference import Epochs, Reference, Span, values_of

# (epoch, step or name; one value per backend, None where undefined; largest difference)
Rows = list[tuple[int | str, list[float | None], float | None]]


@dataclass
class BackendRun:
    """One backend's training.

    `epochs`: rows as in results.csv (`epoch`, `AP`, `AP50`, losses). `step_losses`: the total loss of every step,
    from step 1. `metrics`: COCO's twelve numbers of the last validated epoch, as far as they are defined. `pictures`:
    name -> file, relative to the JSON's folder. `environment`: what it ran on, as shown.
    """

    name: str
    version: str
    device: str
    seconds: float
    epochs: Epochs = field(default_factory=list)
    step_losses: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Check:
    """One gate of the rule: what was compared, whether it held (None: it could not decide), the figures in words."""

    name: str
    passed: bool | None
    detail: str


@dataclass
class AlignRun:
    """All backends side by side; the first one is the reference.

    `rule_text`: the rule as a sentence. `verdict`: the finding as a sentence. `passed`: None where the rule could
    not decide. `pictures`: of all backends together, name -> file, relative to the JSON's folder. `reference`: curves
    of others, which the runs are compared with.
    `intro`: what these runs are; empty: one training per backend. `start`: AP50 of the initial weights, what a model
    that learns nothing ends with; None: unknown.
    """

    config_name: str
    rule_text: str
    verdict: str
    backends: list[BackendRun]
    passed: bool | None = None
    checks: list[Check] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    reference: Reference | None = None
    intro: str = ""
    start: float | None = 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str, where: str = "") -> AlignRun:
        """Raises PortdetError for text that is not an AlignRun's."""
        fix = "run `portdet align`"
        return checked(TypeAdapter(cls), parse_json(text, where, fix, nan=True), where, fix)

    def save(self, path: Path) -> None:
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> AlignRun:
        """A run whose pictures are inside the file's folder: a page shows what they hold."""
        run = read_json(Path(path), TypeAdapter(cls), "run `portdet align` first", nan=True)
        for pictures in (run.pictures, *(backend.pictures for backend in run.backends)):
            for picture in pictures.values():
                below(Path(path).parent, picture, "the picture")
        return run


LAST = 3  # validated epochs whose mean is a run's final score


def final_score(run: BackendRun, metric: str = "AP50") -> float:
    """The score that a run is judged by and shown with: the mean over its last three validated epochs; NaN if none."""
    values = list(values_of(run.epochs, metric).values())[-LAST:]
    return sum(values) / len(values) if values else math.nan


def epoch_table(run: AlignRun, metric: str) -> Rows:
    """Rows (epoch, one value per backend, largest difference); None where a backend has no value (or -1)."""
    columns = [{int(row["epoch"]): _defined(row.get(metric)) for row in backend.epochs} for backend in run.backends]
    rows: Rows = []
    for epoch in sorted({epoch for column in columns for epoch in column}):
        values = [column.get(epoch) for column in columns]
        if any(value is not None for value in values):
            rows.append((epoch, values, spread(values)))
    return rows


def against_table(run: AlignRun, metric: str) -> list[tuple[int, list[float | None], list[float | None], Span | None]]:
    """Rows (epoch, value per run, value per curve of the reference, what is allowed there, None where unknown)."""
    if run.reference is None:
        return []
    ours = [values_of(backend.epochs, metric) for backend in run.backends]
    theirs = [run.reference.curve(name, metric) for name in run.reference.curves]
    allowed = run.reference.allowed(metric)
    epochs = sorted({epoch for curve in theirs for epoch in curve})
    return [(e, [c.get(e) for c in ours], [c.get(e) for c in theirs], allowed.get(e)) for e in epochs]


def loss_table(run: AlignRun, rows: int = 12) -> Rows:
    """Rows (step, total loss per backend, largest difference relative to the first backend's), steps 1 2 5 10 20 .."""
    longest = max((len(backend.step_losses) for backend in run.backends), default=0)
    steps = [m * 10**e for e in range(9) for m in (1, 2, 5) if m * 10**e < longest][-rows + 1 :]
    out: Rows = []
    for step in [*steps, longest] if longest else []:
        values = [b.step_losses[step - 1] if step <= len(b.step_losses) else None for b in run.backends]
        first, difference = values[0], spread(values)
        out.append((step, values, difference / abs(first) if difference is not None and first else None))
    return out


def metric_table(run: AlignRun) -> Rows:
    """Rows (name, final value per backend, largest difference), COCO's order."""
    names = list(dict.fromkeys(name for backend in run.backends for name in backend.metrics))
    rows = [(name, [_defined(backend.metrics.get(name)) for backend in run.backends]) for name in names]
    return [(name, values, spread(values)) for name, values in rows]


def spread(values: list[float | None]) -> float | None:
    """Largest minus smallest of what is there; None of fewer than two."""
    there = [value for value in values if value is not None]
    return max(there) - min(there) if len(there) > 1 else None


def _defined(value: float | None) -> float | None:
    return None if value is None or value < 0 else value
