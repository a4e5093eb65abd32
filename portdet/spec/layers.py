"""Leaf layers: specified here with every number written out, lowered to the framework's own layer of that name."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from portdet import ops
from portdet.spec.module import Module, Param, update

Init = Literal["conv", "he_normal", "zeros"]
"""How a convolution's weight starts: PyTorch's default, Paddle's default, or all zeros."""


class Conv2d(Module):
    """2-d convolution. `pads` are top, bottom, left, right; weight (cout, cin / groups, kernel, kernel).

    init: how the weight starts; the bias starts uniform with 'conv', else at zero. See `portdet.spec.init`.
    """

    leaf: ClassVar[bool] = True

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int,
        stride: int = 1,
        pads: tuple[int, int, int, int] = (0, 0, 0, 0),
        groups: int = 1,
        bias: bool = False,
        init: Init = "conv",
    ) -> None:
        self.stride, self.pads, self.groups = stride, pads, groups
        self.weight = Param((cout, cin // groups, kernel, kernel), init)
        start = f"conv_bias:{cin // groups * kernel * kernel}" if init == "conv" else "zeros"
        self.bias = Param((cout,), start) if bias else None

    def forward(self, x: Any) -> Any:
        return ops.conv2d(x, self.weight, self.bias, stride=self.stride, pads=self.pads, groups=self.groups)


class BatchNorm2d(Module):
    """Batch norm: normalises with the batch's biased variance, stores the unbiased one.

    `momentum` weighs the new value (PyTorch's sense; MindSpore and Paddle weigh the old one).
    """

    leaf: ClassVar[bool] = True

    def __init__(self, channels: int, momentum: float = 0.1, eps: float = 1e-5) -> None:
        self.momentum, self.eps = momentum, eps
        self.weight, self.bias = Param((channels,), "ones"), Param((channels,), "zeros")
        self.running_mean = Param((channels,), "zeros", trainable=False)
        self.running_var = Param((channels,), "ones", trainable=False)

    def forward(self, x: Any) -> Any:
        if self.training:
            mean = ops.mean(x, axis=(0, 2, 3))
            centred = x - _channels(mean)
            var = ops.mean(centred * centred, axis=(0, 2, 3))
            samples = x.shape[0] * x.shape[2] * x.shape[3]
            unbiased = var * samples / (samples - 1)
            keep = 1 - self.momentum
            update(self, "running_mean", self.running_mean * keep + mean * self.momentum)
            update(self, "running_var", self.running_var * keep + unbiased * self.momentum)
        else:
            centred, var = x - _channels(self.running_mean), self.running_var
        return centred / ops.sqrt(_channels(var + self.eps)) * _channels(self.weight) + _channels(self.bias)


def _channels(x: Any) -> Any:
    return ops.reshape(x, shape=(1, -1, 1, 1))
