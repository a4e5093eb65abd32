"""The moving average of the weights on an accelerator, or in float64; on a CPU, see `portdet.shadow.HostShadow`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from portdet.session import Array, Arrays


class DeviceShadow:
    """Tensors beside the model's, updated in one call. start: their first values, of all of `live`."""

    def __init__(self, live: Mapping[str, Any], start: Mapping[str, Array]) -> None:
        self.live = live
        self.values = {name: torch.empty_like(tensor, requires_grad=False) for name, tensor in live.items()}
        self.load(start)

    @torch.no_grad()
    def update(self, decay: float) -> None:
        weights = [tensor.detach() for tensor in self.live.values()]
        torch._foreach_lerp_(list(self.values.values()), weights, 1 - decay)

    def arrays(self) -> Arrays:
        return {name: np.array(value.cpu().numpy()) for name, value in self.values.items()}

    @torch.no_grad()
    def load(self, arrays: Mapping[str, Array]) -> None:
        for name, value in self.values.items():
            value.copy_(torch.from_numpy(np.array(arrays[name])))
