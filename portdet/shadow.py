"""The exponential moving average of all weights and buffers: shadow = d * shadow + (1 - d) * weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import cv2
import numpy as np

from portdet.session import Array, Arrays


class Shadow(Protocol):
    """A moving average of a session's weights, by canonical name. It is made with its values: none is ever empty."""

    def update(self, decay: float) -> None: ...

    def arrays(self) -> Arrays:
        """Copies."""

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Go on from other values, of the same names and shapes."""


SMALL = 1 << 14  # values: below it the call costs more than the memory
Piece = tuple[str, int, int]  # a weight, and the first and last + 1 of its values


class HostShadow:
    """For weights in a CPU's memory. start: the average's first values, of all weights. view(name): the weight as it is
    now, an array that shares its memory.

    The update is one pass over memory, which is all it costs. Milliseconds for the 62 M values of YOLOv3 on one core:
    cv2.addWeighted in place 19, numpy in pieces of 1 MB 35; Paddle's `scale_` and `add_` 125, its `lerp_` 205;
    MindSpore's assign(e * d + p * (1 - d)) in graph mode 110, its `lerp` 920. On two cores 14.7, and torch's
    `_foreach_lerp_` 16.9: it wakes its threads for every weight. Here each thread is woken once, for an equal share;
    the 297 small weights, whose calls took 3 ms more, lie in one row.
    """

    def __init__(self, start: Mapping[str, Array], view: Callable[[str], Array], threads: int) -> None:
        self.names, self.view, self.threads = list(start), view, max(threads, 1)
        self.pool = ThreadPoolExecutor(self.threads)  # OpenCV frees the interpreter
        self.load(start)

    def update(self, decay: float) -> None:
        views = {name: self.view(name).reshape(1, -1) for name in self.names}

        def blend(shadow: Array, weight: Array) -> None:
            cv2.addWeighted(shadow, decay, weight, 1 - decay, 0.0, dst=shadow)

        def all_of(share: list[Piece]) -> None:
            for name, start, end in share:
                blend(self.values[name].reshape(1, -1)[:, start:end], views[name][:, start:end])

        others = [self.pool.submit(all_of, share) for share in self.shares[1:]]
        if self.small:
            blend(self.row, np.concatenate([views[name] for name in self.small], axis=1))
        all_of(self.shares[0])
        for other in others:
            other.result()

    def arrays(self) -> Arrays:
        return {name: array.copy() for name, array in self.values.items()}

    def load(self, arrays: Mapping[str, Array]) -> None:
        self.values: Arrays = {name: np.array(arrays[name], np.float32, order="C") for name in self.names}
        self.small = [name for name in self.names if self.values[name].size < SMALL]
        parts = [self.values[name] for name in self.small]
        # the memory of all small values, in the order of `small`
        self.row = np.concatenate([np.zeros(0, np.float32), *(part.reshape(-1) for part in parts)])[np.newaxis]
        ends = np.cumsum([part.size for part in parts])
        for name, part, end in zip(self.small, parts, ends, strict=True):
            self.values[name] = self.row[0, end - part.size : end].reshape(part.shape)
        self.shares = _shares({n: a.size for n, a in self.values.items() if a.size >= SMALL}, self.threads)


def _shares(sizes: Mapping[str, int], count: int) -> list[list[Piece]]:
    """All values in `count` equal runs, in order: a weight may begin in one and end in the next."""
    shares: list[list[Piece]] = [[] for _ in range(count)]
    length, done = max(-(-sum(sizes.values()) // count), 1), 0
    for name, size in sizes.items():
        start = 0
        while start < size:
            number = done // length
            end = min(size, start + length * (number + 1) - done)
            shares[number].append((name, start, end))
            done, start = done + end - start, end
    return shares
