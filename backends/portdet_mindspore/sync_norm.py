"""Batch norm with the statistics of all ranks."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from portdet.ranks import Place


class StatisticsOfAllRanks(nn.Cell):  # type: ignore[misc]  # mindspore has no types
    """The training kernel of a `nn.BatchNorm2d`, written with one sum over ranks forward and one backward.

    As one process on the global batch: it normalises with the biased variance and stores the unbiased one, both over
    all ranks' pixels; the ranks' batches are of one size. `nn.SyncBatchNorm` has no CPU kernel (2.10), and on Ascend
    whether its stored variance counts the pixels of all ranks could not be tried; this is the same code everywhere.

    The ranks exchange their means and their variances around these. Means of squares would need one sum as well, and
    lose the digits in which a mean exceeds the standard deviation.
    """

    def __init__(self, momentum: float, eps: float, place: Place) -> None:
        """momentum: the weight of the new statistics, as `nn.BatchNorm2d` keeps it."""
        super().__init__()
        self.keep, self.momentum, self.eps, self.world = 1.0 - momentum, momentum, eps, place.world
        own_row = np.zeros((place.world, 1), np.float32)
        own_row[place.rank] = 1
        self.own_row = ms.Tensor(own_row)  # a sum of rows that are zero elsewhere is a gather with a gradient on CPU
        # primitives: with indexing and methods of tensors, the graph takes twice the time to compile
        self.sum_over_ranks, self.average, self.reshape = ops.AllReduce(), ops.ReduceMean(), ops.Reshape()
        self.stack, self.split, self.rsqrt, self.assign = ops.Stack(), ops.Split(0, 2), ops.Rsqrt(), ops.Assign()

    def construct(self, x: Any, gamma: Any, beta: Any, moving_mean: Any, moving_variance: Any) -> Any:
        shape = x.shape
        own_mean = self.mean(x, shape)
        centred = x - self.channels(own_mean)
        own_variance = self.mean(centred * centred, shape)
        own = self.reshape(self.stack((own_mean, own_variance)), (2, 1, -1))
        means, variances = self.split(self.sum_over_ranks(own * self.own_row))
        mean = self.average(means, (0, 1))
        off = means - mean
        variance = self.average(variances + off * off, (0, 1))

        count = self.world * shape[0] * shape[2] * shape[3]
        unbiased = self.momentum * count / (count - 1)
        self.assign(moving_mean, moving_mean * self.keep + ops.stop_gradient(mean) * self.momentum)
        self.assign(moving_variance, moving_variance * self.keep + ops.stop_gradient(variance) * unbiased)
        scale = gamma * self.rsqrt(variance + self.eps)
        return (centred * self.channels(scale) + self.channels(beta + (own_mean - mean) * scale),)

    def mean(self, x: Any, shape: Any) -> Any:
        """Over all but the channels. In two stages: three times faster on CPU than one mean over (0, 2, 3)."""
        return self.average(self.average(self.reshape(x, (shape[0], shape[1], -1)), -1), 0)

    def channels(self, x: Any) -> Any:
        return self.reshape(x, (1, -1, 1, 1))


def share_statistics(model: Any, place: Place) -> None:
    """Make every batch norm of the model normalise with the statistics of all ranks; its parameters stay."""
    for norm in batch_norms(model):
        norm.bn_train = StatisticsOfAllRanks(norm.momentum, norm.eps, place)


def batch_norms(model: Any) -> list[Any]:
    return [cell for _, cell in model.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]
