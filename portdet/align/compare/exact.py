"""Gates without a tolerance: names, shapes, dtypes, where values are NaN or infinite, and integers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portdet.errors import nearest

Array = NDArray[Any]


def names(reference: Iterable[str], candidate: Iterable[str]) -> dict[str, str]:
    """What is wrong by name: tensors that only one of both has."""
    ours, theirs = list(reference), list(candidate)
    here, there = set(ours), set(theirs)
    missing = {name: f"is missing in the other program; {nearest(name, there)}" if there else "is missing"
               for name in ours if name not in there}  # fmt: skip
    extra = {name: "is in the other program alone" for name in theirs if name not in here}
    return missing | extra


def values(got: Array, want: Array, *, widths: bool = True) -> str:
    """What differs between two tensors of one name where no tolerance applies, in words; empty if nothing does.

    widths: whether float16, float32 and float64 count as different.
    """
    if got.shape != want.shape:
        return f"has shape {got.shape} instead of {want.shape}"
    if got.dtype.kind != want.dtype.kind or (widths and got.dtype != want.dtype):
        return f"is {got.dtype} instead of {want.dtype}"
    if want.dtype.kind != "f":
        apart = int((got != want).sum())
        first = _place(got != want)
        return f"differs in {apart} of {want.size} values, first at {first}" if apart else ""
    if np.isfinite(got).all() and np.isfinite(want).all():
        return ""
    for what, test in (("NaN", np.isnan), ("+inf", np.isposinf), ("-inf", np.isneginf)):
        here, there = test(got), test(want)
        if (apart_at := here != there).any():
            return f"has {int(here.sum())} {what} instead of {int(there.sum())}, first apart at {_place(apart_at)}"
    return ""


def _place(mask: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape)) if mask.size else ()
