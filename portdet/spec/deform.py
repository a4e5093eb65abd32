"""Deformable convolution (Zhu et al. 2018, DCNv2): a kernel whose taps are moved and weighed by tensors.

It is written once, from the op table: `deformed` samples the taps into an image, in which a kernel x kernel tile stands
for each output pixel, and a plain convolution of that stride adds them up. So the weight has its usual shape, the
reference and all gradients come from known ops, and a framework without a kernel of its own gets this form.
"""

from __future__ import annotations

from typing import Any

from portdet import ops
from portdet.spec.layers import Conv2d, Init
from portdet.spec.module import Module, function


class DeformConv2d(Module):
    """Modulated deformable convolution, no bias, one group of channels and of offsets; `padding` on all sides.

    forward: x (B, C, H, W); offset (B, 2 kernel^2, h, w): dy and dx of each tap in turn, taps row by row; mask
    (B, kernel^2, h, w), the taps' factors -> (B, cout, h, w), as `deform_conv2d` of Paddle and torchvision. Outside the
    image are zeros, between them and its edge values fade. A position of exactly -1, which zero offsets give with
    padding 1, has no gradient, as in Paddle.

    A target may have a kernel for it (`Target.natives`). `composed` asks for the form below all the same, for devices
    that lack the kernel; the weights are the same ones.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int = 3,
        stride: int = 1,
        padding: int = 1,
        composed: bool = False,
        init: Init = "conv",
    ) -> None:
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.conv = Conv2d(cin, cout, kernel, stride=kernel, init=init)

    def forward(self, x: Any, offset: Any, mask: Any) -> Any:
        return self.conv(deformed(x, offset, mask, self.kernel, self.stride, self.padding))


@function
def deformed(x: Any, offset: Any, mask: Any, kernel: int, stride: int, padding: int) -> Any:
    """The taps of every output pixel as tiles of an image: (B, C, h kernel, w kernel)."""
    batch, channels, height, width = x.shape
    move = tiles(offset, kernel)
    tap = ops.iota(x, length=kernel)
    row = ops.reshape(ops.iota(x, length=offset.shape[2]) * stride - padding, shape=(-1, 1)) + tap
    column = ops.reshape(ops.iota(x, length=offset.shape[3]) * stride - padding, shape=(-1, 1)) + tap
    down = move[:, 0] + ops.reshape(row, shape=(-1, 1))
    across = move[:, 1] + ops.reshape(column, shape=(-1,))
    top, bottom, above, below = neighbours(down, ops.constant(x, values=(height,)))
    left, right, before, after = neighbours(across, ops.constant(x, values=(width,)))
    index = ops.stack([top * width + left, top * width + right, bottom * width + left, bottom * width + right], axis=1)
    index = ops.cast(ops.reshape(index, shape=(batch, -1)), dtype="int32")
    share = ops.stack([above * before, above * after, below * before, below * after], axis=1) * tiles(mask, kernel)
    pixels = ops.permute(ops.reshape(x, shape=(batch, channels, -1)), axes=(0, 2, 1))
    corners = ops.reshape(ops.gather(pixels, index), shape=(batch, 4, -1, channels))
    values = ops.sum(corners * ops.reshape(share, shape=(batch, 4, -1, 1)), axis=1)
    return ops.reshape(ops.permute(values, axes=(0, 2, 1)), shape=(batch, channels, move.shape[2], move.shape[3]))


@function
def tiles(taps: Any, kernel: int) -> Any:
    """(B, kernel^2 n, h, w), n values of each tap in turn -> (B, n, h kernel, w kernel)."""
    batch, _, h, w = taps.shape
    taps = ops.reshape(taps, shape=(batch, kernel, kernel, -1, h, w))
    return ops.reshape(ops.permute(taps, axes=(0, 3, 4, 1, 5, 2)), shape=(batch, -1, h * kernel, w * kernel))


@function
def neighbours(position: Any, size: Any) -> tuple[Any, Any, Any, Any]:
    """The two pixels around each position on a line of `size`, kept inside, and their shares, 0 of those outside.

    A position that rounds to the other side of a pixel gets other neighbours and the same value: no float32 is needed.
    """
    low = ops.stop_gradient(ops.floor(position))
    part = position - low
    last = size - 1
    first_share = (1 - part) * ops.cast(ops.logical_and(low > -1, low < size), dtype="float")
    second_share = part * ops.cast(ops.logical_and(position > -1, low < last), dtype="float")
    first = ops.maximum(ops.minimum(low, last), 0.0)
    second = ops.maximum(ops.minimum(low + 1, last), 0.0)
    return first, second, first_share, second_share
