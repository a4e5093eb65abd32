"""Tensors of a file that are one: names that share a storage, and tensors that were stored twice."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from portdet_convert.files.source import Array, Arrays


def shared(arrays: Arrays) -> dict[str, str]:
    """Name -> the first tensor of the file whose bytes it lies in, whole or in part: tied weights, views."""
    places = ((name, *np.byte_bounds(array)) for name, array in arrays.items() if array.size)
    found: dict[str, str] = {}
    order = {name: number for number, name in enumerate(arrays)}
    first, last = "", -1
    for name, start, end in sorted(places, key=lambda place: (place[1], order[place[0]])):
        if start < last:
            found[name] = first
            last = max(last, end)
        else:
            first, last = name, end
    return {name: found[name] for name in sorted(found, key=order.__getitem__)}


def twins(arrays: Arrays, checksums: Mapping[str, str]) -> dict[str, str]:
    """Name -> the first tensor of the file with its shape and bits, in a place of its own.

    Paddle writes aliases so. Tensors of one value throughout (zeros, ones) are alike by chance and left out.
    """
    seen: dict[tuple[str, tuple[int, ...], str], str | None] = {}
    apart, found = shared(arrays), {}
    for name, array in arrays.items():
        key = (checksums[name], array.shape, str(array.dtype))
        if name in apart or array.dtype.kind == "U":
            continue
        if key not in seen:
            seen[key] = name
        elif (first := seen[key]) is not None:
            if _constant(array):
                seen[key] = None
            else:
                found[name] = first
    return found


def _constant(array: Array) -> bool:
    values = array.view("<u2") if array.dtype.kind == "V" else array
    return values.size < 2 or bool((values == values.reshape(-1)[0]).all())


def lines(arrays: Arrays, checksums: Mapping[str, str]) -> list[str]:
    """For a person, a line each."""
    said = []
    for what, pairs in (
        ("share the values of another in the file", shared(arrays)),
        ("have the bits of another, so they may be one", twins(arrays, checksums)),
    ):
        if pairs:
            few = ", ".join(f"{name} = {first}" for name, first in list(pairs.items())[:3])
            said.append(f"{len(pairs)} tensors {what}: {few}{', ...' if len(pairs) > 3 else ''}")
    return said
