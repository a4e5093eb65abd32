"""Pooling of images (B, C, H, W)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from portdet.ops.table import Sample, Type, op


def _windows(x: NDArray[Any], kernel: int, stride: int) -> NDArray[Any]:
    """(B, C, h, w, kernel, kernel): the windows that lie inside x."""
    views = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (2, 3))  # type: ignore[call-overload]
    return views[:, :, ::stride, ::stride]  # type: ignore[no-any-return]


def _max_pool2d(x: Type, *, kernel: int, stride: int, padding: int) -> Type:
    if 2 * padding > kernel:
        raise ValueError(f"padding {padding} is more than half of kernel {kernel}: torch and MindSpore refuse it")
    n, c, h, w = x[0]
    rows, columns = ((side + 2 * padding - kernel) // stride + 1 for side in (h, w))
    return (n, c, rows, columns), x[1]


@op(
    _max_pool2d,
    Sample(((2, 3, 7, 8),), {"kernel": 3, "stride": 2, "padding": 1}),
    Sample(((1, 2, 5, 6),), {"kernel": 5, "stride": 1, "padding": 2}, lo=-2.0, hi=-1.0),  # a pad of 0 would win
    Sample((np.zeros((1, 1, 4, 4)),), {"kernel": 3, "stride": 2, "padding": 1}),  # all equal
)
def max_pool2d(x: Any, *, kernel: int, stride: int, padding: int) -> Any:
    """Largest value of each window; what is padded, on all four sides, never wins.

    The gradient goes to the first of equal values, row by row, in all three frameworks.
    """
    around = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    return _windows(np.pad(x, around, constant_values=-np.inf), kernel, stride).max(axis=(4, 5))


def _avg_pool2d(x: Type, *, kernel: int) -> Type:
    n, c, h, w = x[0]
    return (n, c, -(-h // kernel), -(-w // kernel)), x[1]


@op(_avg_pool2d, Sample(((2, 3, 4, 6),), {"kernel": 2}), Sample(((2, 3, 5, 7),), {"kernel": 2}))
def avg_pool2d(x: Any, *, kernel: int) -> Any:
    """Mean of each kernel x kernel tile. Tiles that reach over the bottom or right edge average what lies inside.

    This is PaddleDetection's shortcut in ResNet-vd: AvgPool2D(2, 2, ceil_mode=True), `exclusive` left at True.
    """
    _, _, h, w = x.shape
    around = ((0, 0), (0, 0), (0, -h % kernel), (0, -w % kernel))
    totals, inside = (
        _windows(np.pad(part, around), kernel, kernel).sum(axis=(4, 5)) for part in (x, np.ones((1, 1, h, w)))
    )
    return totals / inside
