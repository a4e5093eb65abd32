"""What the necks of PP-YOLO are made of: CoordConv, spatial pyramid pooling, DropBlock."""

from __future__ import annotations

from typing import Any, Literal

from portdet import ops
from portdet.models.layers import Activation, ConvNorm
from portdet.spec import Module, function

CoordRange = Literal["legacy", "ppdet22"]
"""Coordinates of CoordConv: -1 to 1 (PaddleDetection up to 2.1, with which the published weights were trained, and
miemiedetection), or -1 to -0.5 (PaddleDetection from 2.2 on: a bracket of its formula moved)."""


@function
def add_coordinates(x: Any, coord_range: CoordRange) -> Any:
    """x (B, C, H, W) -> (B, C + 2, H, W): each cell's column, then its row, from -1 on (Liu et al. 2018)."""
    size = (x.shape[0], 1, x.shape[2], x.shape[3])
    step = 2.0 if coord_range == "legacy" else 0.5
    column = ops.iota(x, length=x.shape[3]) / (x.shape[3] - 1) * step - 1.0
    row = ops.iota(x, length=x.shape[2]) / (x.shape[2] - 1) * step - 1.0
    columns = ops.broadcast_to(ops.reshape(column, shape=(1, 1, 1, -1)), shape=size)
    rows = ops.broadcast_to(ops.reshape(row, shape=(1, 1, -1, 1)), shape=size)
    return ops.concat([x, columns, rows], axis=1)


class CoordConv(Module):
    """A convolution that also sees where it is."""

    def __init__(self, cin: int, cout: int, kernel: int, coord_range: CoordRange) -> None:
        self.coord_range = coord_range
        self.conv = ConvNorm(cin + 2, cout, kernel, init="he_normal")

    def forward(self, x: Any) -> Any:
        return self.conv(add_coordinates(x, self.coord_range))


class SPP(Module):
    """Spatial pyramid pooling: the input beside its largest values over 5, 9 and 13 cells, then 1x1 back."""

    def __init__(self, channels: int, activation: Activation) -> None:
        self.conv = ConvNorm(4 * channels, channels, 1, activation=activation, init="he_normal")

    def forward(self, x: Any) -> Any:
        pooled = [ops.max_pool2d(x, kernel=kernel, stride=1, padding=kernel // 2) for kernel in (5, 9, 13)]
        return self.conv(ops.concat([x, *pooled], axis=1))


BLOCK = 3
"""Side of the squares that DropBlock drops, in cells; the grid must be larger."""


@function
def drop_block(x: Any, noise: Any, keep: float) -> Any:
    """x with squares of 3 x 3 cells at zero in each channel, scaled to the same mean (Ghiasi et al. 2018; training).

    noise: uniform in 0..1, as many values as x has. A square's centre is where it lies below
    (1 - keep) / 9 * H W / ((H - 2) (W - 2)); the scale is over the whole batch, as in PaddleDetection.
    """
    height, width = x.shape[2], x.shape[3]
    lost = (height - (BLOCK - 1)) * (width - (BLOCK - 1))
    rate = ops.reshape(noise, shape=x.shape) * lost / (height * width)
    centres = ops.cast(ops.less(rate, (1 - keep) / BLOCK**2), dtype="float")
    mask = 1.0 - ops.max_pool2d(centres, kernel=BLOCK, stride=1, padding=BLOCK // 2)
    return x * (mask / ops.mean(mask, axis=None))


class NoiseSplit:
    """The parts of one noise tensor (B, K, h, w) at stride 32 that DropBlocks get, in turn.

    A block of c channels at stride s takes c * (32 / s)**2 channels of it: as many values as it drops.
    """

    def __init__(self) -> None:
        self.channels = 0

    def take(self, channels: int, stride: int) -> slice:
        """The channels of the next block."""
        start, self.channels = self.channels, self.channels + channels * (32 // stride) ** 2
        return slice(start, self.channels)
