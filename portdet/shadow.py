"""The exponential moving average of all weights and buffers: shadow = d * shadow + (1 - d) * weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import cv2
import numpy as np

from portdet.session import Array, Arrays


class Shadow(Protocol):
    """A moving average of a session's weights, by canonical name."""

    def update(self, decay: float) -> None: ...

    def arrays(self) -> Arrays:
        """Copies."""

    def load(self, arrays: Mapping[str, Array]) -> None: ...


SMALL = 1 << 14  # values: below it the call costs more than the memory


class HostShadow:
    """For weights in a CPU's memory. view(name): the weight as it is now, an array that shares its memory.

    The update is one pass over memory, which is all it costs. Milliseconds for the 62 M values of YOLOv3 on one core:
    cv2.addWeighted in place 19, numpy in pieces of 1 MB 35; Paddle's `scale_` and `add_` 125, its `lerp_` 205;
    MindSpore's assign(e * d + p * (1 - d)) in graph mode 110, its `lerp` 920. On two cores 14 to 15; it was 18 to 20
    while each of the 297 small weights had a call of its own, so these lie in one row.
    """

    def __init__(self, names: Collection[str], view: Callable[[str], Array], threads: int) -> None:
        self.names, self.view = list(names), view
        self.values: Arrays = {}
        self.small: list[str] = []
        self.row = np.zeros((1, 0), np.float32)  # the memory of all small values, in the order of `small`
        self.pool = ThreadPoolExecutor(threads)  # OpenCV frees the interpreter

    def update(self, decay: float) -> None:
        def one(name: str) -> None:
            blend(self.values[name].reshape(1, -1), self.view(name).reshape(1, -1))

        def blend(shadow: Array, weight: Array) -> None:
            cv2.addWeighted(shadow, decay, weight, 1 - decay, 0.0, dst=shadow)

        if self.small:
            blend(self.row, np.concatenate([self.view(name).reshape(-1) for name in self.small])[np.newaxis])
        list(self.pool.map(one, [name for name in self.names if self.values[name].size >= SMALL]))

    def arrays(self) -> Arrays:
        return {name: array.copy() for name, array in self.values.items()}

    def load(self, arrays: Mapping[str, Array]) -> None:
        self.values = {name: np.array(arrays[name], np.float32, order="C") for name in self.names}
        self.small = [name for name in self.names if self.values[name].size < SMALL]
        parts = [self.values[name] for name in self.small]
        self.row = np.concatenate([np.zeros(0, np.float32), *(part.reshape(-1) for part in parts)])[np.newaxis]
        ends = np.cumsum([part.size for part in parts])
        for name, part, end in zip(self.small, parts, ends, strict=True):
            self.values[name] = self.row[0, end - part.size : end].reshape(part.shape)
