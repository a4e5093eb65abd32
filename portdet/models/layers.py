"""Blocks that several detectors share."""

from __future__ import annotations

from typing import Any, Literal

from portdet import ops
from portdet.spec import BatchNorm2d, Conv2d, DeformConv2d, Init, Module, function

Padding = Literal["symmetric", "same"]
"""Where a 3x3 convolution of stride 2 pads: darknet's kernel // 2 on all sides, or bottom and right only
(pad_mode 'same' of MindSpore and TensorFlow on even inputs). They agree at stride 1."""

Activation = Literal["relu", "leaky_relu", "mish", "none"]

Variance = Literal["biased", "unbiased"]
"""Which variance of a batch normalises it: the mean of the squares, or darknet's own (CPU), their sum over n - 1."""


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
        variance: Variance = "biased",
        init: Init = "conv",
    ) -> None:
        self.activation, self.variance = activation, variance
        self.conv = Conv2d(cin, cout, kernel, stride, pads(kernel, stride, padding), init=init)
        self.norm = BatchNorm2d(cout, momentum)

    def forward(self, x: Any) -> Any:
        x = self.conv(x)
        y = self.norm(x)
        if self.training and self.variance == "unbiased":
            y = unbiased(x, y, self.norm.eps)
        return activate(y, self.activation)


def activate(x: Any, activation: Activation) -> Any:
    """relu, leaky ReLU of slope 0.1, mish or nothing."""
    if activation == "leaky_relu":
        return ops.leaky_relu(x, slope=0.1)
    return x if activation == "none" else ops.relu(x) if activation == "relu" else ops.mish(x)


class DeformConvNorm(Module):
    """Deformable convolution (DCNv2) that finds its own offsets and factors, batch norm, activation.

    What finds them starts at zero: taps at their places, each counting one half. composed: as `DeformConv2d`'s.
    """

    def __init__(
        self, cin: int, cout: int, kernel: int, stride: int, activation: Activation, composed: bool = False
    ) -> None:
        self.taps, self.activation = kernel * kernel, activation
        padding = kernel // 2
        self.conv_offset = Conv2d(cin, 3 * self.taps, kernel, stride, (padding,) * 4, bias=True, init="zeros")
        self.conv = DeformConv2d(cin, cout, kernel, stride, padding, composed, init="he_normal")
        self.norm = BatchNorm2d(cout)

    def forward(self, x: Any) -> Any:
        found = self.conv_offset(x)
        offset, mask = found[:, : 2 * self.taps], ops.sigmoid(found[:, 2 * self.taps :])
        y = self.norm(self.conv(x, offset, mask))
        return activate(y, self.activation)


@function
def unbiased(x: Any, y: Any, eps: float) -> Any:
    """y, batch norm of x by the biased variance -> by the unbiased one, as darknet's blas.c has it.

    darknet's gradient divides by n where its forward divides by n - 1: the variance has the unbiased value and the
    biased one's gradient. The mean of y is the norm's bias.
    """
    samples = x.shape[0] * x.shape[2] * x.shape[3]
    centred = x - ops.mean(x, axis=(0, 2, 3), keepdims=True)
    biased = ops.mean(centred * centred, axis=(0, 2, 3), keepdims=True)
    variance = biased + ops.stop_gradient(biased / (samples - 1))
    bias = ops.mean(y, axis=(0, 2, 3), keepdims=True)
    return bias + (y - bias) * ops.sqrt((biased + eps) / (variance + eps))
