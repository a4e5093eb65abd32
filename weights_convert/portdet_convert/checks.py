"""What weights must satisfy whatever file they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from portdet.errors import PortdetError
from portdet_convert.files.source import BFLOAT16, Array, Arrays, as_float32, dtype_name


def finite(arrays: Arrays, where: str) -> None:
    """No NaN, no infinity, no negative variance: each is the mark of a damaged or misread file.

    Raises `PortdetError` naming the first tensor, its first bad value and that value's index.
    """
    for name, array in arrays.items():
        values = as_float32(array) if array.dtype.kind == "V" else array
        bad = _first_bad(values, name)
        if bad is not None:
            at = tuple(int(i) for i in np.unravel_index(bad, values.shape))
            value = values[at]
            raise PortdetError(
                f"tensor '{name}' is {value} at {at}",
                where=where,
                fix="the file is damaged, or was read in the wrong order; if it must be so, allow it (--allow-nan)",
            )


def shapes(arrays: Arrays, wanted: Mapping[str, Sequence[int]]) -> None:
    """Every tensor has the shape that its layer gives it, and holds floating-point numbers.

    Raises `PortdetError` naming the first that does not.
    """
    for name, shape in wanted.items():
        array = arrays[name]
        if array.shape != shape:
            raise PortdetError(
                f"tensor '{name}' is {array.shape}, its layer takes {shape}",
                fix="the file is damaged, or belongs to another model",
            )
        if array.dtype.kind != "f" and array.dtype != BFLOAT16:
            raise PortdetError(f"tensor '{name}' holds {dtype_name(array)}: weights are floating-point numbers")


def _first_bad(values: Array, name: str) -> int | None:
    if values.dtype.kind not in "fc" or not values.size:
        return None
    # One sum decides for nearly all tensors, without a temporary array: NaN and infinity survive it.
    with np.errstate(all="ignore"):
        total = np.sum(values, dtype=np.float64 if values.dtype.kind == "f" else np.complex128)
    lowest = float(values.min()) if name.endswith("running_var") else 0.0
    if np.isfinite(total) and lowest >= 0:
        return None
    wrong = ~np.isfinite(values) if not np.isfinite(values).all() else values < min(lowest, 0) / 2
    return int(np.argmax(wrong)) if wrong.any() else None


@contextmanager
def naming_file(path: str | Path) -> Iterator[None]:
    """Adds the file to errors of code that knows names only."""
    try:
        yield
    except PortdetError as error:
        raise error if error.where else type(error)(error.what, fix=error.fix, where=str(path)) from None
