"""Reductions and matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np

from portdet.ops.table import Sample, Type, join, op


def _reduced(x: Type, *, axis: int | tuple[int, ...] | None, keepdims: bool = False) -> Type:
    axes = tuple(range(len(x[0]))) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = tuple(a % len(x[0]) for a in axes)
    kept = [(1 if i in axes else d) for i, d in enumerate(x[0]) if keepdims or i not in axes]
    return tuple(kept), x[1]


@op(
    _reduced,
    Sample(((2, 3, 4),), {"axis": (1, 2)}),
    Sample(((2, 3),), {"axis": None}),
    Sample(((2, 3, 4),), {"axis": -1, "keepdims": True}),
    tolerance=1e-5,
)
def sum_(x: Any, *, axis: int | tuple[int, ...] | None, keepdims: bool = False) -> Any:
    return np.sum(x, axis=axis, keepdims=keepdims)


@op(_reduced, Sample(((2, 3, 4),), {"axis": (0, 2), "keepdims": True}), tolerance=1e-5)
def mean(x: Any, *, axis: int | tuple[int, ...] | None, keepdims: bool = False) -> Any:
    return np.mean(x, axis=axis, keepdims=keepdims)


@op(
    _reduced,
    Sample(((2, 3, 4),), {"axis": -1}),
    Sample(((2, 3, 4),), {"axis": (0, 2), "keepdims": True}),
    Sample(((2, 3),), {"axis": None}),
)
def max_(x: Any, *, axis: int | tuple[int, ...] | None, keepdims: bool = False) -> Any:
    """Largest value. Gradients at ties differ between frameworks: reduce values that carry no gradient."""
    return np.max(x, axis=axis, keepdims=keepdims)


def _argmax(x: Type, *, axis: int) -> Type:
    return _reduced(x, axis=axis)[0], "int32"


@op(
    _argmax,
    Sample(((2, 3, 4),), {"axis": 1}),
    Sample((np.array([[1.0, 3.0, 3.0]]),), {"axis": 1}),
    smooth=False,
)
def argmax(x: Any, *, axis: int) -> Any:
    """Index of the largest value; the first one at ties, as all three frameworks do."""
    return np.argmax(x, axis=axis).astype(np.int32)


def _matmul(a: Type, b: Type) -> Type:
    if a[0][-1] != b[0][-2]:
        raise ValueError("inner sizes differ")
    batch = np.broadcast_shapes(a[0][:-2], b[0][:-2])
    return (*batch, a[0][-2], b[0][-1]), join([a, b])


@op(_matmul, Sample(((2, 3, 4), (2, 4, 5))), tolerance=1e-5)
def matmul(a: Any, b: Any) -> Any:
    return np.matmul(a, b)
