"""How far an array is from the one that was wanted."""

from __future__ import annotations

import numpy as np

from portdet.reference.run import Array


def distance(got: Array, want: Array, least: float = 1e-30) -> float:
    """Largest difference over the largest value wanted (at least `least`); infinite for another shape or for nan."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape or not np.isfinite(got).all():
        return float("inf")
    return float(np.abs(got - want).max(initial=0.0) / max(float(np.abs(want).max(initial=0.0)), least))
