"""Curves that runs are compared with: what others published, or earlier runs, with their run-to-run spread.

Plain data like the rest of an alignment, so that the page, the picture and the tables read it from align.json.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

Curve = dict[int, float]  # epoch -> value
Span = tuple[float, float]


def _numbered(row: dict[str, float]) -> dict[str, float]:
    if not 0 <= row.get("epoch", -1) < 1e9 or row["epoch"] % 1:
        raise ValueError("an epoch's row has its number")
    return row


Epochs = list[Annotated[dict[str, float], AfterValidator(_numbered)]]  # rows as in results.csv


@dataclass
class Reference:
    """Published or earlier curves of one system.

    curves: name -> rows as in results.csv (`epoch`, `AP`, ...; only what was measured). spread: metric -> points
    [epoch, largest difference that equal runs are known to show]; linear in between, unknown outside of them.
    """

    title: str
    source: str
    trained: str
    curves: dict[str, Epochs]
    spread: dict[str, list[Annotated[list[float], Field(min_length=2, max_length=2)]]] = field(default_factory=dict)

    def curve(self, name: str, metric: str) -> Curve:
        """One curve's values by epoch."""
        return values_of(self.curves[name], metric)

    def span(self, metric: str) -> dict[int, Span]:
        """Lowest and highest value of the curves at each of their epochs."""
        found: dict[int, list[float]] = {}
        for name in self.curves:
            for epoch, value in self.curve(name, metric).items():
                found.setdefault(epoch, []).append(value)
        return {epoch: (min(values), max(values)) for epoch, values in sorted(found.items())}

    def allowed(self, metric: str) -> dict[int, Span]:
        """The span widened by the spread, at the epochs where a spread is known."""
        points = np.asarray(self.spread.get(metric, []), float).reshape(-1, 2)
        if not len(points):
            return {}
        first, last = points[:, 0].min(), points[:, 0].max()
        known = {epoch: span for epoch, span in self.span(metric).items() if first <= epoch <= last}
        wide = {epoch: float(np.interp(epoch, points[:, 0], points[:, 1])) for epoch in known}
        return {epoch: (low - wide[epoch], high + wide[epoch]) for epoch, (low, high) in known.items()}

    def metrics(self) -> list[str]:
        """Names of what any curve has, those with a known spread first."""
        names = dict.fromkeys([*self.spread, *(n for rows in self.curves.values() for row in rows for n in row)])
        return [name for name in names if name != "epoch" and self.span(name)]


def values_of(rows: list[dict[str, float]], metric: str) -> Curve:
    """A column of results.csv by epoch; epochs without a value (or -1, undefined) are left out."""
    return {int(row["epoch"]): row[metric] for row in rows if row.get(metric, -1) >= 0}


def beside(value: float, span: Span) -> float:
    """How far a value lies outside of a span: negative below, positive above, 0 inside (ends count as inside)."""
    low, high = span
    slack = 1e-9  # published values have three digits; sums of them have rounding errors
    return value - low if value < low - slack else value - high if value > high + slack else 0.0
