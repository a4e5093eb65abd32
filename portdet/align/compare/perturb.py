"""One-ulp changes: the smallest difference that a program can be given, to see what its arithmetic makes of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def perturb(arrays: Mapping[str, Array], seed: int) -> dict[str, Array]:
    """Every floating-point value moved to the next one above or below, drawn from (seed, name); 0 stays 0.

    A tensor's changes do not depend on its neighbours, so that every program gets the same ones. Other dtypes stay.
    """
    return {name: _perturbed(np.asarray(array), seed, name) for name, array in arrays.items()}


def _perturbed(array: Array, seed: int, name: str) -> Array:
    if array.dtype.kind != "f":
        return array.copy()
    word = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, word], np.uint64)))
    bits = np.unpackbits(np.frombuffer(generator.bytes(-(-array.size // 8)), np.uint8), count=array.size)
    towards = np.where(bits.astype(bool).reshape(array.shape), np.inf, -np.inf).astype(array.dtype)
    moved: Array = np.where(array == 0, array, np.nextafter(array, towards))
    return moved
