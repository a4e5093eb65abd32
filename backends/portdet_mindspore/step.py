"""The two parts of a train step: losses with gradients, one graph for each input size; and the update, one graph.

They are cut there because the gradients lie in memory anyway, the update need not be compiled again for every size,
the host skips it when a scaled gradient overflowed, and `losses_and_gradients` is what training really computes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mindspore as ms
from mindspore import ops

SMALL = 2.0**-64  # so that the sum of any 10^19 finite float32 values stays finite


@dataclass(frozen=True)
class Trained:
    """A weight that is trained: its parameter, its momentum, and its group's settings."""

    weight: Any
    momentum: Any
    weight_decay: float
    lr_scale: float


def make_backward(model: Any, weights: Any, *, find_overflow: bool) -> Callable[..., Any]:
    """(loss_scale, *inputs of the model) -> names of the losses, [*losses, finite], scaled gradients.

    `finite` is 1.0 where every gradient is finite, or where nobody asks.
    """

    def forward(loss_scale: Any, *inputs: Any) -> Any:
        losses = model(*inputs)
        return losses["loss"] * loss_scale, tuple(losses.keys()), ops.stack(tuple(losses.values()))

    gradient = ms.value_and_grad(forward, None, weights, has_aux=True)

    def backward(loss_scale: Any, *inputs: Any) -> Any:
        (_, names, losses), grads = gradient(loss_scale, *inputs)
        finite = losses[0:1] * 0.0 + 1.0
        if find_overflow:
            total = losses[0] * 0.0
            for grad in grads:
                total = total + _row_sums(grad * SMALL)
            finite = ops.isfinite(total).float().reshape((1,))
        return names, ops.concat((losses, finite)), grads

    return backward


def make_update(
    trained: Sequence[Trained], momentum: float, nesterov: bool, clip_norm: float, clipped: Sequence[int], scaled: bool
) -> Callable[..., Any]:
    """(lr, 1 / loss_scale, *gradients) -> 1 / loss_scale, after v = m v + (g + decay w); w -= lr v.

    nesterov: w -= lr (g + decay w + m v). clipped: how many weights in turn have one norm, which above clip_norm scales
    their gradients down to it (eps 1e-6, as torch).
    The gradients come unpacked: MindSpore takes a tuple for a constant, and compiles again at every step.
    """
    weights = ms.ParameterTuple([item.weight for item in trained])
    momenta = ms.ParameterTuple([item.momentum for item in trained])
    decays = tuple(item.weight_decay for item in trained)
    lr_scales = tuple(item.lr_scale for item in trained)
    ends = tuple(itertools.accumulate(clipped))
    spans = tuple(zip((0, *ends), ends, strict=False))
    each = ops.HyperMap()  # compiles in a third of the time of a for loop
    rule = nesterov_rule if nesterov else momentum_rule

    def update(lr: Any, unscale: Any, *grads: Any) -> Any:
        if clip_norm:
            squares, factors = each(square_sum, grads), ()
            for start, end in spans:
                norm = ops.sqrt(ops.addn(squares[start:end])) * unscale
                factors += (unscale * ops.minimum(clip_norm / (norm + 1e-6), 1.0),) * (end - start)
            grads = each(times, factors, grads)
        elif scaled:
            grads = each(ops.partial(times, unscale), grads)
        grads = each(add_decay, decays, weights, grads)
        each(ops.partial(rule, momentum, lr), lr_scales, weights, momenta, grads)
        return unscale

    return update


square_sum = ops.MultitypeFuncGraph("square_sum")
times = ops.MultitypeFuncGraph("times")
add_decay = ops.MultitypeFuncGraph("add_decay")
momentum_rule = ops.MultitypeFuncGraph("momentum_rule")
nesterov_rule = ops.MultitypeFuncGraph("nesterov_rule")
apply_momentum = ops.ApplyMomentum()


@square_sum.register("Tensor")
def _square_sum(grad: Any) -> Any:
    return _row_sums(grad * grad)


@times.register("Tensor", "Tensor")
def _times(factor: Any, grad: Any) -> Any:
    return grad * factor


@add_decay.register("Number", "Tensor", "Tensor")
def _add_decay(decay: float, weight: Any, grad: Any) -> Any:
    """One pass over memory; grad + decay * weight takes two."""
    return grad.add(weight, alpha=decay) if decay else grad


@momentum_rule.register("Number", "Tensor", "Number", "Tensor", "Tensor", "Tensor")
def _momentum(momentum: float, lr: Any, lr_scale: float, weight: Any, velocity: Any, grad: Any) -> Any:
    return apply_momentum(weight, velocity, lr * lr_scale, grad, momentum)


@nesterov_rule.register("Number", "Tensor", "Number", "Tensor", "Tensor", "Tensor")
def _nesterov(momentum: float, lr: Any, lr_scale: float, weight: Any, velocity: Any, grad: Any) -> Any:
    """Written out: ApplyMomentum(use_nesterov=True) ignores it on CPU."""
    after = ops.assign(velocity, velocity * momentum + grad)
    return ops.assign_sub(weight, (grad + after * momentum) * (lr * lr_scale))


def _row_sums(x: Any) -> Any:
    """Sum over all elements. In two stages: one sum over all is five times slower on CPU (ops.L2Loss errs by 0.4 %)."""
    return x.reshape((x.shape[0], -1)).sum(-1).sum()
