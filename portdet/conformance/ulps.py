"""How far float32 results lie from what float64 gives: in units in the last place (ulp), at the worst value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from portdet.session import Array

TINY = 2.0**-126  # the least normal number: kernels may take what is below for zero, as input and as result
HUGE = 2.0**128  # what infinity counts as: the first number that float32 has no room for


@dataclass(frozen=True)
class Worst:
    """The value that is furthest off: where it is among the values, how far, and what was given and wanted."""

    place: int
    ulps: float
    got: float
    want: float


def ulps(got: Array, want: Array, least: float) -> Array:
    """|got - want| in ulps of float32 at max(|want|, least); HUGE for nan where a number is wanted, and for a number
    where nan is. Infinity counts as the number after the largest one."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    nan = np.isnan(want)
    there, wanted = np.clip(got, -HUGE, HUGE), np.where(nan, 0.0, np.clip(want, -HUGE, HUGE))
    size = np.clip(np.abs(wanted), max(least, TINY), HUGE / 2)
    apart = np.abs(there - wanted)
    apart = np.where(np.abs(wanted) < TINY, np.maximum(apart - TINY, 0.0), apart)
    found = apart / np.exp2(np.floor(np.log2(size)) - 23)
    return np.where(nan, np.where(np.isnan(got), 0.0, HUGE), np.where(np.isnan(got), HUGE, found))


def worst(got: Array, wants: tuple[Array, ...], least: float) -> Worst:
    """The worst place of `got`, where each value may be any one of `wants`."""
    apart = np.stack([ulps(got, want, least).reshape(-1) for want in wants])
    best = apart.min(axis=0)
    place = int(np.argmax(best))
    want = wants[int(np.argmin(apart[:, place]))].reshape(-1)[place]
    return Worst(place, float(best[place]), float(got.reshape(-1)[place]), float(want))


def flushed(x: Array) -> Array:
    """What a kernel sees that takes numbers below TINY for zero."""
    if x.dtype.kind != "f":
        return x
    return np.where(np.abs(x) < TINY, np.copysign(0.0, x), x)
