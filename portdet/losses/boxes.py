"""Box arithmetic on (..., 4) tensors."""

from __future__ import annotations

from typing import Any

from portdet import ops
from portdet.spec import function


@function
def pairwise_iou(a: Any, b: Any) -> Any:
    """Overlap of boxes in centre form: (B, N, 4), (B, T, 4) -> (B, N, T). No epsilon: one of a pair needs an area."""
    low_a, high_a = a[..., 0:2] - a[..., 2:4] / 2.0, a[..., 0:2] + a[..., 2:4] / 2.0
    low_b, high_b = b[..., 0:2] - b[..., 2:4] / 2.0, b[..., 0:2] + b[..., 2:4] / 2.0
    low = ops.maximum(low_a[:, :, None, :], low_b[:, None, :, :])
    high = ops.minimum(high_a[:, :, None, :], high_b[:, None, :, :])
    side = ops.maximum(high - low, 0.0)
    inter = side[..., 0] * side[..., 1]
    area_a, area_b = a[..., 2] * a[..., 3], b[..., 2] * b[..., 3]
    return inter / (area_a[:, :, None] + area_b[:, None, :] - inter)
