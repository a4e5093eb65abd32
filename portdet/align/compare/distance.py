"""How far two tensors of one name lie apart, in float64, in blocks, so that large ones need no copies of themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_BLOCK = 1 << 18  # values
SMALL, _TOGETHER = 1 << 12, 1 << 10
"""Values of an array that is small, and how many of these are joined: together they stay below 64 MB."""


@dataclass(frozen=True)
class Distance:
    """max_rel: largest difference over the largest reference value. rel_l2: norm of the difference over the norm of the
    reference. cosine: of the angle between both. signed_ulp: mean difference (with sign), in float32 ulp of the
    reference's root mean square: noise has no sign. equal: bit for bit, where both are finite.
    """

    max_rel: float
    rel_l2: float
    cosine: float
    signed_ulp: float
    equal: bool


def distance(got: Array, want: Array) -> Distance:
    """Between two tensors of one shape; values that are not finite in either are left out (see `exact`).

    Where the reference is zero everywhere, the scale is that of `got`.
    """
    furthest = largest = largest_got = 0.0
    squares = np.zeros(4)  # of the difference, of want, of got, got times want
    signed, count = 0.0, 0
    flat_got, flat_want = got.reshape(-1), want.reshape(-1)
    for start in range(0, flat_want.size, _BLOCK):
        a = flat_got[start : start + _BLOCK].astype(np.float64)
        b = flat_want[start : start + _BLOCK].astype(np.float64)
        with np.errstate(invalid="ignore"):
            product = a @ b
        if not np.isfinite(product):  # any NaN or infinity ends up in it
            finite = np.isfinite(a) & np.isfinite(b)
            a, b = a[finite], b[finite]
        apart = a - b
        furthest = max(furthest, _largest(apart))
        largest = max(largest, _largest(b))
        largest_got = max(largest_got, _largest(a))
        squares += [apart @ apart, b @ b, a @ a, a @ b]
        signed += float(apart.sum())
        count += apart.size
    if not furthest:
        return Distance(0.0, 0.0, 1.0, 0.0, True)
    differences, wanted, given, both = (float(value) for value in squares)
    norms = (wanted * given) ** 0.5
    rms = ((wanted or given) / count) ** 0.5
    return Distance(
        max_rel=furthest / (largest or largest_got),
        rel_l2=(differences / (wanted or given)) ** 0.5,
        cosine=min(1.0, both / norms) if norms else 0.0,
        signed_ulp=signed / count / float(np.spacing(np.float32(rms))),
        equal=False,
    )


def distances(pairs: Sequence[tuple[Array, Array]]) -> list[Distance]:
    """`distance` of many pairs, those of small arrays all at once: a dump of sketches takes a tenth of the time."""
    found: list[Distance | None] = [None] * len(pairs)
    small: list[int] = []
    for place, (got, want) in enumerate(pairs):
        if 0 < want.size <= SMALL:
            small.append(place)
        else:
            found[place] = distance(got, want)
    sizes = np.array([pairs[place][1].size for place in small])
    for first in range(0, len(small), _TOGETHER):
        chosen = small[first : first + _TOGETHER]
        for place, apart in zip(chosen, _together(pairs, chosen, sizes[first : first + _TOGETHER]), strict=True):
            found[place] = apart
    return [one for one in found if one is not None]


def _together(pairs: Sequence[tuple[Array, Array]], chosen: list[int], sizes: Array) -> Iterator[Distance]:
    """Like `distance`, of several pairs joined to one."""
    a, b = (np.concatenate([pairs[place][side].reshape(-1) for place in chosen], dtype=np.float64) for side in (0, 1))
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    finite = np.isfinite(a) & np.isfinite(b)
    if not finite.all():
        a, b, sizes = np.where(finite, a, 0.0), np.where(finite, b, 0.0), np.add.reduceat(finite, starts, dtype=int)
    apart = a - b
    furthest, largest, largest_got = (np.maximum.reduceat(np.abs(x), starts) for x in (apart, b, a))
    differences, wanted, given, both = (
        np.add.reduceat(x * y, starts) for x, y in ((apart, apart), (b, b), (a, a), (a, b))
    )
    signed = np.add.reduceat(apart, starts)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(wanted, wanted, given)
        norms = np.sqrt(wanted * given)
        columns = (
            furthest / np.where(largest, largest, largest_got),
            np.sqrt(differences / scale),
            np.where(norms, np.minimum(1.0, both / norms), 0.0),
            signed / sizes / np.spacing(np.sqrt(scale / sizes).astype(np.float32)),
        )
    rows = zip((furthest == 0).tolist(), *(column.tolist() for column in columns), strict=True)
    for equal, max_rel, rel_l2, cosine, ulp in rows:
        yield Distance(0.0, 0.0, 1.0, 0.0, True) if equal else Distance(max_rel, rel_l2, cosine, ulp, False)


def _largest(values: Array) -> float:
    """The largest absolute value, without an array of them."""
    return float(max(values.max(initial=0.0), -values.min(initial=0.0)))
