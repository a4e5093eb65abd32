"""Streaming statistics: a tensor in two kilobytes, whose distance to another's is that of the tensors themselves.

A count sketch (Charikar, Chen and Farach-Colton 2002; Weinberger et al. 2009): every value gets a random sign and is
added to one of `size` sums, in float64. It is linear, so the sketch of a difference is the difference of sketches, and
it keeps norms: the relative l2 distance of two sketches is that of the tensors with a standard deviation of
about 1 / sqrt(2 size), 4.5 % for 251 sums. Sign and sum depend on the position alone, not on name, program or layout in
memory.

    with DumpWriter(path) as out:
        sketches = Sketches(out.put)
        with hooks.collected(net, sketches):
            loss(net(images)).backward()
        hooks.weight_gradients(net, sketches)
"""

from __future__ import annotations

import functools
import hashlib
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portdet.align.compare.collect import Put

Array = NDArray[Any]

SIZE = 251
"""Sums of a tensor. A prime, so that values a whole row or channel apart do not fall into one sum."""
_ROWS, _GROUPS = 256, 16  # of signs; with 251 sums a block of 64,256 values stays in a core's cache
_BLOCKS_A_THREAD = 2  # fewer do not pay for the handing over, 30 us
_DTYPES = ("float16", "float32", "float64")
FACTS, LARGEST = "#facts", "#largest"
_local = threading.local()


class Sketches:
    """A `put` that passes small tensors on to `put` as they are, of larger ones what `parts` gives.

    Envelope, Median, compare and `portdet compare` work on sketches as they do on tensors; both sides must have been
    sketched with one size and one seed. Arrays are looked at while it runs and never kept.
    """

    views = True  # hooks need not copy

    def __init__(self, put: Put, size: int = SIZE, seed: int = 0) -> None:
        self.put, self.size, self.seed = put, size, seed
        self._last: tuple[str, dict[str, Array]] = ("", {})

    def __call__(self, name: str, array: Array) -> None:
        self._last = name, parts(np.asarray(array), self.size, self.seed)
        self._pass_on(name)

    def again(self, name: str, before: str) -> bool:
        """The tensor `before` under another name too; False, and nothing is done, if it was not the last that came."""
        if known := self._last[0] == before:
            self._pass_on(name)
        return known

    def _pass_on(self, name: str) -> None:
        for part, values in self._last[1].items():
            self.put(name + part, values)


def parts(array: Array, size: int = SIZE, seed: int = 0) -> dict[str, Array]:
    """What is kept of a tensor, by the ending of its name.

    Up to `size` values: a copy. Of floats '#facts': int64 of dtype, counts of NaN, +inf and -inf, where they are, and
    shape; '': the sketch of the finite values; '#largest': the largest absolute one of these. Other dtypes: '#facts'
    and a digest, so that any change shows.
    """
    if array.size <= size:
        return {"": array.copy()}
    if array.dtype.kind != "f":
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        facts = [-1, *np.frombuffer(array.dtype.str.encode(), np.uint8), *array.shape]
        digest = hashlib.blake2b(data, digest_size=16).digest()
        return {FACTS: np.array(facts, np.int64), "": np.frombuffer(digest, np.uint8)}
    sums, largest = _pass(array, size, seed)
    counts, places = [0, 0, 0], 0
    if not math.isfinite(largest):
        masks = [np.isnan(array), np.isposinf(array), np.isneginf(array)]
        counts = [int(mask.sum()) for mask in masks]
        code = hashlib.blake2b(b"".join(np.packbits(mask).tobytes() for mask in masks), digest_size=7).digest()
        places = int.from_bytes(code, "little")
        sums, largest = _pass(np.where(np.isfinite(array), array, array.dtype.type(0)), size, seed)
    facts = [_DTYPES.index(array.dtype.name), *counts, places, *array.shape]
    return {FACTS: np.array(facts, np.int64), "": sums, LARGEST: np.array(largest)}


def sketch(array: Array, size: int = SIZE, seed: int = 0) -> Array:
    """The `size` signed sums of a tensor's values in C order, float64; not finite where a value is not."""
    return _pass(np.asarray(array), size, seed)[0]


def _pass(array: Array, size: int, seed: int) -> tuple[Array, float]:
    """Sketch and largest absolute value, in one pass over the memory; that of a large tensor in two threads."""
    flat = np.ascontiguousarray(array).reshape(-1)
    block = _ROWS * size
    half = -(-flat.size // block) // 2
    if half < _BLOCKS_A_THREAD:
        return _blocks(flat, size, seed, 0)
    other = _helper().submit(_blocks, flat[half * block :], size, seed, half)  # numpy lets go of the interpreter
    sums, largest = _blocks(flat[: half * block], size, seed, 0)
    more, larger = other.result()
    return sums + more, largest + larger if math.isnan(largest + larger) else max(largest, larger)


def _blocks(flat: Array, size: int, seed: int, first: int) -> tuple[Array, float]:
    """Of whole blocks, of which `first` lie before.

    float32 is summed in groups of 16 rows first, which takes half the time of float64 throughout and moves sums by
    8e-8 of the largest.
    """
    kind = np.dtype(np.float32 if flat.dtype == np.float32 else np.float64)
    signs, block = _signs(size, seed, kind.name), _ROWS * size
    count = -(-flat.size // block)
    sums, largest = np.empty((count, size)), 0.0
    for number in range(count):
        values = flat[number * block : (number + 1) * block]
        highest, lowest = float(values.max()), float(values.min())
        if not -math.inf < lowest <= highest < math.inf:
            return np.full(size, np.nan), math.nan
        largest = max(largest, highest, -lowest)
        if values.size < block or values.dtype != kind:
            values = _filled(values, size, kind.name)
        groups = np.einsum("grc,grc->gc", values.reshape(signs.shape), signs)
        groups.sum(axis=0, dtype=np.float64, out=sums[number])
    turned = np.take_along_axis(sums, _rolled(size, first, count), axis=1)
    turned *= _turns(size, seed, first, count)
    total: Array = turned.sum(axis=0)
    return total, largest


@functools.cache
def _helper() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "sketch")


def _filled(values: Array, size: int, kind: str) -> Array:
    """A block's values, with zeros after them; in room that each thread has once, so that it stays in the cache."""
    room: Array | None = getattr(_local, kind, None)
    if room is None or room.size != _ROWS * size:
        room = np.empty(_ROWS * size, kind)
        setattr(_local, kind, room)
    room[: values.size] = values
    room[values.size :] = 0
    return room


@functools.lru_cache(maxsize=8)
def _signs(size: int, seed: int, kind: str) -> Array:
    return _draw(seed, 0, _ROWS * size).reshape(_GROUPS, _ROWS // _GROUPS, size).astype(kind)


@functools.lru_cache(maxsize=256)
def _turns(size: int, seed: int, first: int, count: int) -> Array:
    """Signs of whole blocks' sums: all blocks share `_signs`, so their sums also change places."""
    return np.stack([_draw(seed, 1 + number, size) for number in range(first, first + count)])


@functools.lru_cache(maxsize=256)
def _rolled(size: int, first: int, count: int) -> Array:
    """Where a block's sums come from: they move on by one place a block."""
    return (np.arange(size) - np.arange(first, first + count)[:, np.newaxis]) % size


def _draw(seed: int, stream: int, count: int) -> Array:
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))
    bits = np.unpackbits(np.frombuffer(generator.bytes(-(-count // 8)), np.uint8), count=count)
    return bits * 2.0 - 1.0
