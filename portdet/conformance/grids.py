"""The values that elementwise ops are swept over: all of float32's range, densely where functions bend."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from portdet.session import Array

COUNT = 100_003  # no multiple of any vector's width: the last values are computed one by one
LEAST, LARGEST = 1.5e-45, 3.4028234e38  # float32's smallest denormal number and its largest one
EDGES = (0.0, 88.7228, 88.7229, -87.3365, -103.97)  # where exp becomes infinite, denormal, zero
SHORT = (3, 7, 15)  # lengths below a vector's width: AVX2 takes 8 at a time, AVX-512 16


def _powers() -> Array:
    """Every power of two with its neighbours."""
    exact = np.exp2(np.arange(-149.0, 128.0)).astype(np.float32)
    return np.concatenate([exact, np.nextafter(exact, np.float32(np.inf)), np.nextafter(exact[1:], np.float32(0))])


def _filled(parts: list[Array]) -> Array:
    """These, and even steps in logarithm over the whole range: COUNT values, sorted, float32."""
    known = np.unique(np.concatenate([np.asarray(part, np.float32) for part in parts]))
    missing = COUNT - known.size
    more = np.geomspace(LEAST, LARGEST, missing if known[0] > 0 else (missing + 1) // 2)
    more = more if known[0] > 0 else np.concatenate([more, -more])
    return np.sort(np.concatenate([known, more[:missing].astype(np.float32)]))


@functools.cache
def everywhere() -> Array:
    """Both signs, zero, steps of 1e-3 in [-20, 20], and up to where exp leaves float32, at either end."""
    powers = _powers()
    return _filled([powers, -powers, np.linspace(-20, 20, 40_001), np.linspace(-104, 104, 8_001), np.array(EDGES)])


@functools.cache
def positive() -> Array:
    """Above zero: steps of 1e-3 up to 20, and each value next to 1, where logarithms cancel."""
    near = 1 + np.arange(-5_000, 5_000) * 2.0**-23
    return _filled([_powers(), near, np.linspace(1e-3, 20, 20_000)])


@functools.cache
def pairs() -> tuple[Array, Array]:
    """Two arrays: each value beside another one from anywhere, itself, its neighbour, its opposite, or one of its own
    magnitude, where sums round."""
    random = np.random.default_rng(2)
    a = everywhere()
    far, turn = a[random.permutation(COUNT)], np.arange(COUNT) % 8
    near = (np.clip(a, -LARGEST / 4, LARGEST / 4) * random.uniform(0.25, 4, COUNT)).astype(np.float32)
    kinds = [a, np.nextafter(a, np.float32(0)), -a, near, near, far, far, far]
    return a, np.choose(turn, kinds).astype(np.float32)


def arranged(arrays: tuple[Array, ...]) -> Mapping[str, tuple[Array, ...]]:
    """The same values at different places: in one piece; as a column of a matrix, which kernels step over one by one;
    and in pieces too short for a vector."""
    found: dict[str, tuple[Array, ...]] = {"whole": arrays}
    found["column"] = tuple(np.stack([part[::3], part[::3]], axis=1) for part in arrays)
    middle = np.flatnonzero((np.abs(arrays[0]) > 1e-3) & (np.abs(arrays[0]) < 100))
    for length in SHORT:
        places = np.random.default_rng(length).choice(middle, length, replace=False)
        found[f"{length} values"] = tuple(part[places] for part in arrays)
    return found
