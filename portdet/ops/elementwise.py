"""Elementwise ops, with numpy's broadcasting."""

from __future__ import annotations

from typing import Any

import numpy as np

from portdet.ir.graph import DType
from portdet.ops.table import Sample, Type, broadcast, compared, join, op, same

_ONE = Sample(((3, 4),))
_TWO = (Sample(((3, 4), (3, 4))), Sample(((2, 3, 4), (4,))))
_FLAGS = Sample((np.array([[True, False, True]]), np.array([[True], [False]])))


@op(broadcast, *_TWO)
def add(a: Any, b: Any) -> Any:
    return a + b


@op(broadcast, *_TWO)
def sub(a: Any, b: Any) -> Any:
    return a - b


@op(broadcast, *_TWO)
def mul(a: Any, b: Any) -> Any:
    return a * b


@op(broadcast, Sample(((3, 4), (3, 4)), lo=0.5, hi=2.0))
def div(a: Any, b: Any) -> Any:
    return a / b


@op(broadcast, *_TWO)
def maximum(a: Any, b: Any) -> Any:
    return np.maximum(a, b)


@op(broadcast, *_TWO)
def minimum(a: Any, b: Any) -> Any:
    return np.minimum(a, b)


@op(same, _ONE)
def neg(x: Any) -> Any:
    return -x


@op(same, _ONE, Sample((np.array([-3.0, -0.5, 0.5, 3.0]),)))
def abs_(x: Any) -> Any:
    return np.abs(x)


@op(same, _ONE)
def relu(x: Any) -> Any:
    return np.maximum(x, 0)


@op(same, Sample(((3, 4),), {"slope": 0.1}))
def leaky_relu(x: Any, *, slope: float) -> Any:
    return np.where(x > 0, x, slope * x)


@op(same, _ONE, Sample((np.array([-200.0, -20.0, 0.0, 20.0, 200.0]),)))
def sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


@op(same, _ONE, Sample((np.array([-100.0, -15.0, 0.0, 15.0, 100.0]),)))
def tanh(x: Any) -> Any:
    return np.tanh(x)


@op(same, Sample((np.array([-100.0, -15.0, -5.0, 0.0, 2.0]),)), Sample((np.array([19.0, 21.0, 100.0]),)))
def softplus(x: Any) -> Any:
    """log(1 + exp(x)), without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


@op(same, _ONE, Sample((np.array([-100.0, -15.0, -1.2, 0.0, 5.0, 15.0, 100.0]),)))
def mish(x: Any) -> Any:
    """x * tanh(softplus(x)) (Misra 2019). An op, and not three: it is x n / (n + 2), n = e^2x + 2 e^x, without tanh."""
    return x * np.tanh(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


@op(same, _ONE)
def exp(x: Any) -> Any:
    return np.exp(x)


@op(same, Sample(((3, 4),), lo=0.1))
def log(x: Any) -> Any:
    return np.log(x)


@op(same, Sample(((3, 4),), lo=0.1))
def sqrt(x: Any) -> Any:
    return np.sqrt(x)


@op(same, _ONE, smooth=False)
def floor(x: Any) -> Any:
    return np.floor(x)


@op(same, _ONE)
def stop_gradient(x: Any) -> Any:
    """The value itself; no gradient flows through it."""
    return x


def _one_shape(x: Type, target: Type) -> Type:
    if x[0] != target[0]:
        raise ValueError("torch and MindSpore take logits and targets of one shape")
    return x[0], join([x, target])


@op(
    _one_shape,
    _TWO[0],
    Sample((np.array([-100.0, -30.0, 0.0, 30.0, 100.0]), np.array([0.0, 1.0, 0.5, 1.0, 0.0]))),
)
def bce_with_logits(x: Any, target: Any) -> Any:
    """Binary cross entropy of a logit, per element, in the form that neither overflows nor cancels. One shape."""
    return np.maximum(x, 0) - x * target + np.log1p(np.exp(-np.abs(x)))


@op(compared, *_TWO, smooth=False)
def less(a: Any, b: Any) -> Any:
    return a < b


@op(compared, *_TWO, smooth=False)
def greater(a: Any, b: Any) -> Any:
    return a > b


@op(compared, Sample((np.array([1.0, 2.0, 3.0]), np.array([1.0, 5.0, 3.0]))), smooth=False)
def equal(a: Any, b: Any) -> Any:
    return a == b


@op(compared, _FLAGS, smooth=False)
def logical_and(a: Any, b: Any) -> Any:
    return np.logical_and(a, b)


@op(compared, Sample((np.array([True, False]),)), smooth=False)
def logical_not(x: Any) -> Any:
    return np.logical_not(x)


def _where(condition: Type, a: Any, b: Any) -> Type:
    shape, _ = broadcast(condition, a, b)
    return shape, join([a, b])


@op(_where, Sample((np.array([True, False, True]), (2, 3), (3,))))
def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, else b. Both sides are computed: keep them finite, or gradients become nan."""
    return np.where(condition, a, b)


def _cast(x: Type, *, dtype: DType) -> Type:
    return x[0], dtype


NUMPY = {"float": np.float64, "float32": np.float32, "int32": np.int32, "bool": np.bool_}


@op(
    _cast,
    Sample((np.array([True, False]),), {"dtype": "float"}),
    Sample((np.array([1.7, -1.7]),), {"dtype": "int32"}),
    smooth=False,
)
def cast(x: Any, *, dtype: DType) -> Any:
    """Change of type; float to int truncates. 'float32' holds in the reference too: index arithmetic needs it."""
    return np.asarray(x).astype(NUMPY[dtype])
