"""The moving average of the weights on an accelerator; on a CPU, see `portdet.shadow.HostShadow`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle

from portdet.session import Array, Arrays


class DeviceShadow:
    """Tensors beside the model's, one kernel each. start: their first values, of all of `live`."""

    def __init__(self, live: Mapping[str, Any], start: Mapping[str, Array]) -> None:
        self.live = live
        self.load(start)

    def update(self, decay: float) -> None:
        with paddle.no_grad():
            for name, tensor in self.live.items():
                self.values[name].lerp_(tensor.detach(), 1 - decay)

    def arrays(self) -> Arrays:
        return {name: np.array(value.numpy()) for name, value in self.values.items()}

    def load(self, arrays: Mapping[str, Array]) -> None:
        self.values = {name: paddle.to_tensor(arrays[name], dtype="float32") for name in self.live}
