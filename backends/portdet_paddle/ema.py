"""The moving average of the weights on an accelerator; on a CPU, see `portdet.shadow.HostShadow`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import paddle

from portdet.session import Array, Arrays


class DeviceShadow:
    """Tensors beside the model's, one kernel each."""

    def __init__(self, live: Mapping[str, Any]) -> None:
        self.live = live
        self.values: dict[str, Any] = {}

    def update(self, decay: float) -> None:
        with paddle.no_grad():
            for name, tensor in self.live.items():
                self.values[name].lerp_(tensor.detach(), 1 - decay)

    def arrays(self) -> Arrays:
        return {name: np.array(value.numpy()) for name, value in self.values.items()}

    def load(self, arrays: Mapping[str, Array]) -> None:
        self.values = {name: paddle.to_tensor(array, dtype="float32") for name, array in arrays.items()}
