"""How far the losses of two free-running trainings can be compared, and what can be said from there on.

Rounding grows from step to step, and where it moves an activation across zero it jumps: after 5 to 15 steps every two
runs of one program lie percents apart. What one-ulp changes of the initial weights do to the reference's own losses
says where (the horizon), how far apart they may lie before it, and between which bounds all of them stay after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portdet.align.compare.envelope import ULP
from portdet.align.compare.judge import DIFFERENT, DOUBTFUL
from portdet.align.ladder.outcome import Row
from portdet.errors import PortdetError

Array = NDArray[np.float64]

CHAOS = 0.01
"""Relative distance of the self-runs beyond which a loss is no longer compared step by step."""
AHEAD = 1
"""Steps by which a run may be ahead of the self-runs on the way to chaos. Of 3,000 healthy triples each of torch,
Paddle and MindSpore against 8 self-runs (tiny YOLOv3, 30 steps) the largest ratio was 68 with 0 steps and 2.4 with 1.
"""
OUTSIDE = 4.0
"""Half-widths from the middle of the self-runs' range, 1 being its edge. The same triples reached 3.4."""
RUNS = 3  # of a candidate, whose median counts: one flip of an activation does not show
WINDOWS = 3  # that the steps after the horizon are judged in, so that a fault which comes late is not averaged away


@dataclass(frozen=True)
class Envelope:
    """base: (steps,) total losses of the unperturbed reference; runs: (K, steps) under one-ulp changed weights."""

    base: Array
    runs: Array

    @classmethod
    def of(cls, base: Sequence[float], runs: Sequence[Sequence[float]]) -> Envelope:
        """Raises PortdetError where the reference's own losses are not finite, or there are no self-runs."""
        every = np.array([base, *runs], np.float64)
        if len(every) < 2 or not np.isfinite(every).all():
            raise PortdetError("no self-runs with finite losses to learn the noise from", fix="lower optim.lr0")
        return cls(every[0], every[1:])

    @cached_property
    def noise(self) -> Array:
        """Largest relative distance of a self-run from the base at each step, at least one ulp."""
        largest: Array = _relative(self.runs, self.base).max(axis=0)
        return np.maximum(largest, ULP)

    @cached_property
    def horizon(self) -> int:
        """The first step at which the noise exceeds CHAOS; the number of steps if it never does."""
        beyond = np.flatnonzero(self.noise > CHAOS)
        return int(beyond[0]) if beyond.size else len(self.base)

    @cached_property
    def tolerance(self) -> Array:
        """What a run may lie apart at each step: the largest noise up to there and AHEAD steps further."""
        so_far: Array = np.maximum.accumulate(self.noise)
        ahead: Array = np.append(so_far[AHEAD:], np.repeat(so_far[-1:], AHEAD))[-len(so_far) :]
        return ahead

    def windows(self) -> list[tuple[int, int]]:
        """First and last step + 1 of the parts after the horizon."""
        parts = np.array_split(np.arange(self.horizon, len(self.base)), WINDOWS)
        return [(int(part[0]), int(part[-1]) + 1) for part in parts if part.size]

    def apart(self, runs: Array) -> Array:
        """Before the horizon: the median run's relative distance from the base at each step."""
        middle: Array = np.median(_relative(runs, self.base), axis=0)
        return middle[: self.horizon]

    def places(self, runs: Array, window: tuple[int, int]) -> tuple[float, float, float]:
        """After it: the median run's mean deviation in a window, and the middle and half-width of the self-runs'.

        Deviations are relative, from the median of all self-runs at each step.
        """
        first, last = window
        every = np.vstack([self.base, self.runs])[:, first:last]
        usual = np.median(every, axis=0)
        own, theirs = (((x - usual) / np.abs(usual)).mean(axis=1) for x in (every, runs[:, first:last]))
        middle, half = (own.max() + own.min()) / 2, max((own.max() - own.min()) / 2, ULP)
        return float(np.median(theirs)), float(middle), float(half)

    @cached_property
    def healthy(self) -> tuple[int, float, float]:
        """Every three self-runs against the others: how many such sets, and their largest ratios before and after the
        horizon. With fewer runs left the bounds are narrower, so this is harder than what a candidate has to pass."""
        number, before, after = 0, 0.0, 0.0
        for out in combinations(range(len(self.runs)), RUNS):
            rest = Envelope(self.base, np.delete(self.runs, out, axis=0))
            if not len(rest.runs):
                break
            number += 1
            left_out = self.runs[list(out)]
            before = max(before, *rest.ratios(left_out), 0.0)
            after = max(after, *(rest.outside(left_out, window) for window in rest.windows()), 0.0)
        return number, before, after

    def ratios(self, runs: Array) -> list[float]:
        """Distance over tolerance at each step before the horizon."""
        return [float(ratio) for ratio in self.apart(runs) / self.tolerance[: self.horizon]]

    def outside(self, runs: Array, window: tuple[int, int]) -> float:
        """Half-widths from the middle of the range."""
        place, middle, half = self.places(runs, window)
        return abs(place - middle) / half


def judged(envelope: Envelope, runs: Sequence[Sequence[float]]) -> list[Row]:
    """A candidate's runs under one-ulp changes, of which the median counts: a row a step before the horizon, a row a
    window after it. Where healthy runs of the reference reach further than usual, so may the candidate.
    """
    losses = np.array(runs, np.float64)
    if (broken := _not_finite(losses)) is not None:
        return [Row("loss", "broken", "is not finite, the reference's is", step=broken)]
    _, before, after = envelope.healthy
    limit, edge = max(DIFFERENT, before), max(OUTSIDE, after)
    rows = [_step_row(envelope, step, apart, limit) for step, apart in enumerate(envelope.apart(losses))]
    return rows + [_window_row(envelope, losses, window, edge) for window in envelope.windows()]


def _step_row(envelope: Envelope, step: int, apart: float, limit: float) -> Row:
    noise = float(envelope.tolerance[step])
    ratio = apart / noise
    words = (
        f"lies {apart:.1e} of its value apart, {ratio:.3g} times what one-ulp changes of the initial weights do to it "
        f"({noise:.1e})"
    )
    status = "same" if not apart else _status(ratio, DOUBTFUL, limit)
    return Row("loss", status, words, step, ratio, max_rel=apart, rel_l2=apart, tolerance=limit * noise)


def _window_row(envelope: Envelope, losses: Array, window: tuple[int, int], edge: float) -> Row:
    place, middle, half = envelope.places(losses, window)
    ratio = envelope.outside(losses, window)
    words = (
        f"of steps {window[0]} to {window[1] - 1} lies {place:+.1%} from the self-runs' median on average; they lie "
        f"{middle - half:+.1%} to {middle + half:+.1%}, and {edge:.2g} times as far from their middle is allowed"
    )
    name = f"loss/after {window[0]}"
    return Row(name, _status(ratio, edge, edge), words, window[0], ratio, max_rel=abs(place), tolerance=edge * half)


def _status(ratio: float, doubtful: float, limit: float) -> str:
    return "different" if ratio > limit else "doubtful" if ratio > doubtful else "noise"


def _relative(runs: Array, base: Array) -> Array:
    apart: Array = np.abs(runs - base) / np.maximum(np.abs(base), np.finfo(np.float32).tiny)
    return apart


def _not_finite(losses: NDArray[Any]) -> int | None:
    """The first step at which any run has no finite loss."""
    steps = np.flatnonzero(~np.isfinite(losses).all(axis=0))
    return int(steps[0]) if steps.size else None
