"""Ops that move values without changing them, and ops that make tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from portdet.ir.graph import Size
from portdet.ir.place import spec_error
from portdet.ops.table import Sample, Type, join, numbers, op, zeros


def _reshape(x: Type, *, shape: tuple[int | Size, ...]) -> Type:
    return zeros(x).reshape(numbers(shape)).shape, x[1]


@op(_reshape, Sample(((2, 6),), {"shape": (3, 4)}), Sample(((2, 6),), {"shape": (-1, 3)}))
def reshape(x: Any, *, shape: tuple[int | Size, ...]) -> Any:
    """Row-major; one size may be -1."""
    return np.reshape(x, numbers(shape))


def _permute(x: Type, *, axes: tuple[int, ...]) -> Type:
    return zeros(x).transpose(axes).shape, x[1]


@op(_permute, Sample(((2, 3, 4),), {"axes": (0, 2, 1)}))
def permute(x: Any, *, axes: tuple[int, ...]) -> Any:
    return np.transpose(x, axes)


def _broadcast_to(x: Type, *, shape: tuple[int | Size, ...]) -> Type:
    return np.broadcast_shapes(x[0], numbers(shape)), x[1]


@op(_broadcast_to, Sample(((1, 3, 1),), {"shape": (2, 3, 4)}))
def broadcast_to(x: Any, *, shape: tuple[int | Size, ...]) -> Any:
    return np.broadcast_to(x, numbers(shape))


def _getitem(x: Type, *, index: tuple[Any, ...]) -> Type:
    for part in index:
        if isinstance(part, slice) and part.step not in (None, 1):
            # MindSpore 2.10's gradient of strided slices fails on CPU: "StridedSliceGrad, 6 input memory out of bounds"
            raise spec_error(f"slice with step {part.step}", "reshape and permute instead")
        if not (part is None or part is Ellipsis or isinstance(part, int | slice)):
            raise spec_error(f"index {part!r}", "static ints, slices, None and ... only; gather takes tensor indices")
    return zeros(x)[index].shape, x[1]


@op(
    _getitem,
    Sample(((3, 4, 5),), {"index": (Ellipsis, slice(1, 3))}),
    Sample(((3, 4),), {"index": (slice(None), None, 2)}),
)
def getitem(x: Any, *, index: tuple[Any, ...]) -> Any:
    return x[index]


def _concat(xs: list[Type], *, axis: int) -> Type:
    shape = list(xs[0][0])
    axis = axis % len(shape)
    if any(x[0][:axis] + x[0][axis + 1 :] != xs[0][0][:axis] + xs[0][0][axis + 1 :] for x in xs):
        raise ValueError("sizes differ beside the joined axis")
    shape[axis] = sum(x[0][axis] for x in xs)
    return tuple(shape), join(xs)


@op(_concat, Sample((((2, 3), (2, 1)),), {"axis": 1}))
def concat(xs: Any, *, axis: int) -> Any:
    return np.concatenate(xs, axis=axis)


def _stack(xs: list[Type], *, axis: int) -> Type:
    shape = list(xs[0][0])
    shape.insert(axis, len(xs))
    return tuple(shape), join(xs)


@op(_stack, Sample((((2, 3), (2, 3)),), {"axis": 1}))
def stack(xs: Any, *, axis: int) -> Any:
    """Tensors of one shape along a new axis (axis >= 0)."""
    return np.stack(xs, axis=axis)


def _iota(like: Type, *, length: int | Size) -> Type:
    return numbers((length,)), like[1]


@op(_iota, Sample(((2, 3),), {"length": 5}), smooth=False)
def iota(like: Any, *, length: int | Size) -> Any:
    """0, 1, ..., length-1 with the dtype and device of `like`."""
    return np.arange(*numbers((length,))).astype(np.asarray(like).dtype)


def _resolved(values: Any) -> Any:
    if isinstance(values, tuple):
        return tuple(_resolved(v) for v in values)
    return values.value if isinstance(values, Size) else values


def _constant(like: Type, *, values: tuple[Any, ...]) -> Type:
    return np.shape(_resolved(values)), like[1]


@op(_constant, Sample(((2, 3),), {"values": ((1.0, 2.5), (3.0, 4.0))}), smooth=False)
def constant(like: Any, *, values: tuple[Any, ...]) -> Any:
    """A small table of numbers and sizes, with the dtype and device of `like`."""
    return np.array(_resolved(values)).astype(np.asarray(like).dtype)


def _gather(x: Type, index: Type) -> Type:
    if len(x[0]) != 3 or len(index[0]) != 2 or x[0][0] != index[0][0]:
        raise ValueError("gather takes rows along axis 1: x (B, N, D), index (B, T)")
    return (x[0][0], index[0][1], x[0][2]), x[1]


@op(_gather, Sample(((2, 5, 3), np.array([[0, 4, 4], [2, 1, 0]], np.int32))))
def gather(x: Any, index: Any) -> Any:
    """Rows by index: x (B, N, D), index (B, T) int32 in 0..N-1 -> (B, T, D)."""
    return np.take_along_axis(x, np.asarray(index, np.int64)[..., None], axis=1)
