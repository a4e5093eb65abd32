"""Convolution and resizing of images (B, C, H, W)."""

from __future__ import annotations

from typing import Any

import numpy as np

from portdet.ops.table import Sample, Type, op

Pads = tuple[int, int, int, int]
"""top, bottom, left, right"""


def _conv2d(x: Type, weight: Type, bias: Type | None, *, stride: int, pads: Pads, groups: int = 1) -> Type:
    (n, cin, h, w), (cout, per_group, kh, kw) = x[0], weight[0]
    if cin != per_group * groups or cout % groups:
        raise ValueError(f"{cin} channels do not fit weight {weight[0]} in {groups} groups")
    rows = (h + pads[0] + pads[1] - kh) // stride + 1
    return (n, cout, rows, (w + pads[2] + pads[3] - kw) // stride + 1), x[1]


@op(
    _conv2d,
    Sample(((2, 3, 7, 8), (5, 3, 3, 3), (5,)), {"stride": 1, "pads": (1, 1, 1, 1)}),
    Sample(((2, 4, 8, 8), (6, 4, 3, 3), None), {"stride": 2, "pads": (0, 1, 0, 1)}),
    Sample(((2, 4, 8, 8), (6, 2, 1, 1), None), {"stride": 1, "pads": (0, 0, 0, 0), "groups": 2}),
    tolerance=1e-5,
)
def conv2d(x: Any, weight: Any, bias: Any, *, stride: int, pads: Pads, groups: int = 1) -> Any:
    """Cross-correlation: weight (out, in / groups, kh, kw), explicit zero padding, bias (out,) or None."""
    padded = np.pad(x, ((0, 0), (0, 0), pads[:2], pads[2:]))
    outs = []
    for part, kernel in zip(np.split(padded, groups, 1), np.split(weight, groups, 0), strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(part, kernel.shape[2:], (2, 3))  # type: ignore[call-overload]
        windows = windows[:, :, ::stride, ::stride]
        n, c, h, w, kh, kw = windows.shape
        columns = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, c * kh * kw)
        outs.append((columns @ kernel.reshape(len(kernel), -1).T).reshape(n, h, w, -1).transpose(0, 3, 1, 2))
    y = np.concatenate(outs, axis=1)
    return y if bias is None else y + bias[:, None, None]


def conv2d_macs(weight: Type, out: Type, groups: int) -> int:
    """Multiply-accumulates of one convolution."""
    n, cout, h, w = out[0]
    _, per_group, kh, kw = weight[0]
    return n * cout * h * w * per_group * kh * kw


def _upsample(x: Type, *, factor: int) -> Type:
    n, c, h, w = x[0]
    return (n, c, h * factor, w * factor), x[1]


@op(_upsample, Sample(((2, 3, 4, 5),), {"factor": 2}))
def upsample_nearest(x: Any, *, factor: int) -> Any:
    """Each pixel repeated factor x factor times."""
    return np.repeat(np.repeat(x, factor, axis=2), factor, axis=3)
