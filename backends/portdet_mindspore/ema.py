"""The moving average of the weights on an accelerator; on a CPU, see `portdet.shadow.HostShadow`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mindspore as ms
from mindspore import ops

from portdet.session import Array, Arrays
from portdet_mindspore.arrays import copy_in, to_numpy


class DeviceShadow:
    """Parameters beside the model's, one compiled update. start: their first values, of all of `live`."""

    def __init__(self, live: Mapping[str, Any], start: Mapping[str, Array]) -> None:
        self.names = list(live)
        weights = ms.ParameterTuple(list(live.values()))
        self.shadow = weights.clone("ema", init="zeros")
        shadow = self.shadow

        def update(decay: Any) -> Any:
            for average, weight in zip(shadow, weights):  # noqa: B905
                ops.assign(average, average * decay + weight * (1.0 - decay))
            return decay

        self.run = ms.jit(update)
        self.load(start)

    def update(self, decay: float) -> None:
        self.run(ms.Tensor(decay, ms.float32))

    def arrays(self) -> Arrays:
        return {name: to_numpy(tensor) for name, tensor in zip(self.names, self.shadow, strict=True)}

    def load(self, arrays: Mapping[str, Array]) -> None:
        copy_in(dict(zip(self.names, self.shadow, strict=True)), arrays)
