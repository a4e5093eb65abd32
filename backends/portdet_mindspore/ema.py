"""The exponential moving average of all weights and buffers: shadow = d * shadow + (1 - d) * weights.

Milliseconds for the 62 M values of YOLOv3 on one core (train step, batch 2, 320 px: about 2700 of CPU time):
cv2.addWeighted in place 19, numpy with out= in pieces of 512 kB 33, assign(e * d + p * (1 - d)) in graph mode 110,
ops.lerp 920. So on CPU the shadow is numpy arrays; elsewhere it stays on the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import cv2
import mindspore as ms
import numpy as np
from mindspore import ops

from portdet.session import Array, Arrays
from portdet_mindspore.arrays import copy_in, to_numpy


class Shadow(Protocol):
    """A moving average of parameters, by canonical name."""

    def update(self, decay: float) -> None: ...

    def arrays(self) -> Arrays:
        """Copies."""

    def load(self, arrays: Mapping[str, Array]) -> None: ...


class HostShadow:
    """For CPU: `asnumpy` of a parameter shares its memory, so both sides are plain arrays."""

    def __init__(self, live: Mapping[str, Any], threads: int) -> None:
        self.live = live
        self.shadow: Arrays = {}
        self.pool = ThreadPoolExecutor(threads)

    def update(self, decay: float) -> None:
        def one(name: str) -> None:
            shadow, weight = self.shadow[name].reshape(1, -1), self.live[name].asnumpy().reshape(1, -1)
            cv2.addWeighted(shadow, decay, weight, 1 - decay, 0.0, dst=shadow)

        list(self.pool.map(one, self.shadow))

    def arrays(self) -> Arrays:
        return {name: array.copy() for name, array in self.shadow.items()}

    def load(self, arrays: Mapping[str, Array]) -> None:
        self.shadow = {name: np.array(arrays[name], np.float32, order="C") for name in self.live}


class DeviceShadow:
    """For devices: one compiled update of parameters beside the model's."""

    def __init__(self, live: Mapping[str, Any]) -> None:
        self.names = list(live)
        weights = ms.ParameterTuple(list(live.values()))
        self.shadow = weights.clone("ema", init="zeros")
        shadow = self.shadow

        def update(decay: Any) -> Any:
            for average, weight in zip(shadow, weights):  # noqa: B905
                ops.assign(average, average * decay + weight * (1.0 - decay))
            return decay

        self.run = ms.jit(update)

    def update(self, decay: float) -> None:
        self.run(ms.Tensor(decay, ms.float32))

    def arrays(self) -> Arrays:
        return {name: to_numpy(tensor) for name, tensor in zip(self.names, self.shadow, strict=True)}

    def load(self, arrays: Mapping[str, Array]) -> None:
        copy_in(dict(zip(self.names, self.shadow, strict=True)), arrays)
