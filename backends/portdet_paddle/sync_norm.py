"""Batch norm over the batches of all ranks."""

from __future__ import annotations

from typing import Any

import paddle
import paddle.distributed as dist
from paddle import nn
from paddle.autograd import PyLayer


class SyncBatchNorm2D(nn.BatchNorm2D):  # type: ignore[misc]
    """What one process would compute on the ranks' batches together, which are of one size.

    As the generated BatchNorm2D it normalises with the biased variance and stores the unbiased one. Paddle's own
    SyncBatchNorm has no kernel for CPU; its kernel for GPU stores the biased variance, and takes it as mean(x^2) -
    mean(x)^2, which cancels where the mean is large.
    """

    def forward(self, x: Any) -> Any:
        if not self.training:
            return super().forward(x)
        world = dist.get_world_size()
        count = x.shape[0] * x.shape[2] * x.shape[3] * world
        fixed = x.detach()
        mean = _total(_mean(fixed)) / world
        variance = _total(_mean(paddle.square(fixed - mean))) / world
        h = _Normalise.apply(x, mean, paddle.rsqrt(variance + self._epsilon))
        rows = [1, -1, 1, 1]
        y = h * self.weight.reshape(rows) + self.bias.reshape(rows)
        keep = self._momentum
        unbiased = variance.flatten() * (count / (count - 1))
        paddle.assign(self._mean * keep + mean.flatten() * (1 - keep), self._mean)
        paddle.assign(self._variance * keep + unbiased * (1 - keep), self._variance)
        return y


class _Normalise(PyLayer):  # type: ignore[misc]
    """h = (x - mean) * scale, where mean and scale = 1 / deviation follow from x of all ranks.

    With n values on all ranks and the sum of the ranks' losses, dx = scale * (dh - sum(dh) / n - h * sum(dh * h) / n),
    where both sums are over all ranks (Ioffe and Szegedy 2015).
    """

    @staticmethod
    def forward(ctx: Any, x: Any, mean: Any, scale: Any) -> Any:
        h = (x - mean) * scale
        ctx.save_for_backward(h, scale)
        return h

    @staticmethod
    def backward(ctx: Any, dh: Any) -> Any:
        h, scale = ctx.saved_tensor()
        means = [_mean(dh), _mean(dh * h)]
        first, second = _total(paddle.stack(means) / dist.get_world_size())
        return scale * (dh - first - h * second), None, None


def _mean(x: Any) -> Any:
    """Over images and pixels, row by row. Over all axes at once Paddle adds value to value on a CPU: 1.2e-5 of the mean
    off for (4, 32, 208, 208), which is 60 times the error of its own batch norm; by rows 3e-7, in half the time."""
    for axis in (3, 2, 0):
        x = x.mean(axis=axis, keepdim=True)
    return x


def _total(x: Any) -> Any:
    """The sum over all ranks."""
    y = paddle.assign(x)
    dist.all_reduce(y)
    return y
