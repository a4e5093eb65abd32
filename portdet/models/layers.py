"""Blocks that several detectors share."""

from __future__ import annotations

from typing import Any, Literal

from portdet import ops
from portdet.spec import BatchNorm2d, Conv2d, Module

Padding = Literal["symmetric", "same"]
"""Where a 3x3 convolution of stride 2 pads: darknet's kernel // 2 on all sides, or bottom and right only
(pad_mode 'same' of MindSpore and TensorFlow on even inputs). They agree at stride 1."""

Activation = Literal["relu", "leaky_relu"]


def pads(kernel: int, stride: int, padding: Padding) -> tuple[int, int, int, int]:
    """top, bottom, left, right."""
    total = kernel - 1
    before = (total - 1) // 2 if padding == "same" and stride == 2 else total // 2
    after = total - stride + 1 - before if padding == "same" and stride == 2 else total // 2
    return before, after, before, after


class ConvNorm(Module):
    """Convolution without bias, batch norm, activation: the unit of DarkNet and its heads."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int,
        stride: int = 1,
        activation: Activation = "leaky_relu",
        padding: Padding = "symmetric",
        momentum: float = 0.1,
    ) -> None:
        self.activation = activation
        self.conv = Conv2d(cin, cout, kernel, stride, pads(kernel, stride, padding))
        self.norm = BatchNorm2d(cout, momentum)

    def forward(self, x: Any) -> Any:
        y = self.norm(self.conv(x))
        return ops.relu(y) if self.activation == "relu" else ops.leaky_relu(y, slope=0.1)
