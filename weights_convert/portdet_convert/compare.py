"""What values a tensor holds, and how far two are apart; in pieces, so that none is copied whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from portdet_convert.files.source import BFLOAT16, Array, Arrays, as_float32, dtype_name

_PIECE = 1 << 18
_SQUARABLE = 1e140  # squares of larger float64 numbers, and sums of 10^18 of them, overflow; of the inverse, vanish


@dataclass(frozen=True)
class Statistics:
    """Of the finite values: mean, standard deviation (of the population), least and greatest; how many are not."""

    mean: float
    std: float
    least: float
    greatest: float
    nan: int
    infinite: int


@dataclass(frozen=True)
class Gap:
    """How two tensors of one shape differ: in how many values, by how much at most, and where that is.

    `relative` is `absolute` over the largest finite |value| of the second tensor. A NaN on one side is infinitely far.
    """

    count: int
    absolute: float
    relative: float
    at: tuple[int, ...]


def statistics(array: Array) -> Statistics | None:
    """Of a tensor of any numeric dtype; None if it holds no numbers."""
    if array.dtype.kind not in "biufV" or not array.size:
        return None
    flat = array.ravel(order="K")  # a view of a transposed tensor too
    count, nan, total, least, greatest = 0, 0, 0.0, math.inf, -math.inf
    for piece in _pieces(flat):
        good = _finite(piece)
        if good.size < piece.size:
            nan += int(np.isnan(piece).sum())
        if good.size:
            count += good.size
            with np.errstate(over="ignore"):
                total += float(good.sum())
            least, greatest = min(least, float(good.min())), max(greatest, float(good.max()))
    if not count:
        return Statistics(math.nan, math.nan, math.nan, math.nan, nan, flat.size - nan)
    unit = 1.0
    largest = max(-least, greatest)
    if largest and not 1 / _SQUARABLE < largest < _SQUARABLE:  # a power of two: dividing by it is exact
        unit = 2.0 ** min(math.frexp(largest)[1], 1023)
        total = sum(float((_finite(piece) / unit).sum()) for piece in _pieces(flat))
    mean = total / count
    squares = sum(float(np.square(_finite(piece) / unit - mean).sum()) for piece in _pieces(flat))
    deviation = math.sqrt(squares / count)
    return Statistics(mean * unit, deviation * unit, least, greatest, nan, flat.size - nan - count)


def gap(a: Array, b: Array, atol: float = 0.0, rtol: float = 0.0) -> Gap | None:
    """How `a` differs from `b`, which has its shape; None if bits and dtype are the same.

    With a tolerance a value differs when |a - b| > atol + rtol |b|, and dtypes may differ.
    """
    bitwise = atol == rtol == 0
    first, second = _flat(a), _flat(b)
    count, worst, where, scale = 0, -1.0, 0, 0.0
    for number, (x, y) in enumerate(zip(_pieces(first), _pieces(second), strict=True)):
        scale = max(scale, float(np.abs(_finite(y)).max(initial=0.0)))
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(x - y)
        apart[(x == y) | (np.isnan(x) & np.isnan(y))] = 0.0
        apart[np.isnan(apart)] = math.inf
        start = number * _PIECE
        if bitwise and a.dtype == b.dtype:
            differs = _bits(first, start) != _bits(second, start)
        else:
            with np.errstate(over="ignore"):
                differs = ~(apart <= atol + rtol * np.abs(y))
        count += int(differs.sum())
        furthest = int(np.argmax(np.where(differs, apart, -1.0)))
        if differs[furthest] and apart[furthest] > worst:
            worst, where = float(apart[furthest]), start + furthest
    if not count:
        return Gap(0, 0.0, 0.0, ()) if bitwise and dtype_name(a) != dtype_name(b) else None
    relative = worst / scale if scale else math.inf if worst else 0.0
    at = np.unravel_index(where * a.size // first.size, a.shape)
    return Gap(count, worst, relative, tuple(int(i) for i in at))


def unlike(theirs: Arrays, ours: Arrays) -> list[str]:
    """Names that only one side has, or whose shape or bits differ; `theirs` may have bfloat16 as float32."""
    wrong = [name for name in theirs if name not in ours]
    for name, mine in ours.items():
        other = theirs.get(name)
        if other is not None and other.dtype != BFLOAT16 == mine.dtype:
            mine = as_float32(mine)
        if other is None or other.shape != mine.shape or gap(other, mine) is not None:
            wrong.append(name)
    return wrong


def _flat(array: Array) -> Array:
    """One axis; a complex number is two values."""
    flat = array.reshape(-1)
    return flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat


def _pieces(flat: Array) -> Iterator[Array]:
    """The values as float64, exact up to 53 bits."""
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        yield (as_float32(piece) if piece.dtype == BFLOAT16 else piece).astype(np.float64)


def _finite(piece: Array) -> Array:
    finite = np.isfinite(piece)
    return piece if finite.all() else piece[finite]


def _bits(flat: Array, start: int) -> Array:
    piece = np.ascontiguousarray(flat[start : start + _PIECE])
    return piece.view(f"u{piece.itemsize}")
