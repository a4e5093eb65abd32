"""Greedy non-maximum suppression in numpy, one implementation for every backend.

Boxes are (n, 4) arrays x1 y1 x2 y2. Two conventions of a box's side are in use and give different overlaps:
`pixel_offset=1` counts both edge pixels, x2 - x1 + 1 (PASCAL, mindspore-ai/models, PaddleDetection's
`normalized=False`); `pixel_offset=0` takes the plain difference (darknet, torchvision, COCO).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from portdet.session import Array

Indices = NDArray[np.int64]
Kind = Literal["greedy", "diou"]
Overlap = Callable[[Array, Array, float], Array]

_BLOCK = 64  # candidates resolved together: overlaps of a block stay in the cache, and an early stop wastes little


def iou(a: Array, b: Array, pixel_offset: float = 0.0) -> Array:
    """Overlap of every box of `a` (n, 4) with every box of `b` (m, 4): (n, m), 0 where the union is empty."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    inter = _side(a, b, 0, pixel_offset) * _side(a, b, 1, pixel_offset)
    union = _area(a, pixel_offset)[:, None] + _area(b, pixel_offset)[None] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)


def diou(a: Array, b: Array, pixel_offset: float = 0.0) -> Array:
    """Distance IoU (Zheng et al. 2020, eq. 7): IoU less (distance of centres / diagonal of the common box) squared.

    As in LuoJiaNET's inference the pixel offset acts on the areas only, and the result is cut to [-1, 1].
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    centre = (a[:, None, :2] + a[:, None, 2:] - b[None, :, :2] - b[None, :, 2:]) / 2
    outer = np.maximum(a[:, None, 2:], b[None, :, 2:]) - np.minimum(a[:, None, :2], b[None, :, :2])
    apart, diagonal = (centre**2).sum(-1), (outer**2).sum(-1)
    penalty = np.divide(apart, diagonal, out=np.zeros_like(apart), where=diagonal > 0)
    clipped: Array = np.clip(iou(a, b, pixel_offset) - penalty, -1.0, 1.0)
    return clipped


def nms(
    boxes: Array,
    scores: Array,
    labels: Array | None = None,
    *,
    threshold: float,
    pixel_offset: float = 1.0,
    kind: Kind = "greedy",
    limit: int = 0,
) -> Indices:
    """Indices of the boxes that stay, best score first; boxes of different `labels` never suppress each other.

    A box goes if its overlap with a kept box is greater than `threshold` (equal stays). Equal scores keep the
    order of the input: numpy's `argsort()[::-1]` of mindspore-ai/models leaves it open, so ties may differ there.
    `limit` > 0 keeps at most that many boxes per label; as kept boxes come in order of score, the first `limit`
    are those of the unlimited result.
    """
    scores = np.asarray(scores)
    groups = [np.arange(len(scores))] if labels is None else [np.flatnonzero(labels == c) for c in np.unique(labels)]
    overlap = iou if kind == "greedy" else diou
    kept = []
    for group in groups:
        order = group[np.argsort(-scores[group], kind="stable")]
        stay = _greedy(np.asarray(boxes, np.float64)[order], threshold, pixel_offset, overlap, limit)
        kept.append(order[stay])
    indices = np.concatenate(kept) if kept else np.zeros(0, np.int64)
    best_first: Indices = indices[np.lexsort((indices, -scores[indices]))]
    return best_first


def _greedy(boxes: Array, threshold: float, pixel_offset: float, overlap: Overlap, limit: int) -> Indices:
    """`nms` of boxes that are sorted already: a block of candidates at a time against all that follow."""
    alive = np.ones(len(boxes), bool)
    kept: list[int] = []
    for start in range(0, len(boxes), _BLOCK):
        rows = start + np.flatnonzero(alive[start : start + _BLOCK])
        rest = start + np.flatnonzero(alive[start:])
        over = overlap(boxes[rows], boxes[rest], pixel_offset) > threshold
        for row, suppressed in zip(rows, over, strict=True):
            if not alive[row]:
                continue
            kept.append(row)
            if len(kept) == limit:
                return np.array(kept, np.int64)
            alive[rest[suppressed]] = False
    return np.array(kept, np.int64)


def _side(a: Array, b: Array, axis: int, pixel_offset: float) -> Array:
    low = np.maximum(a[:, None, axis], b[None, :, axis])
    high = np.minimum(a[:, None, axis + 2], b[None, :, axis + 2])
    side: Array = np.maximum(high - low + pixel_offset, 0.0)
    return side


def _area(boxes: Array, pixel_offset: float) -> Array:
    area: Array = (boxes[:, 2] - boxes[:, 0] + pixel_offset) * (boxes[:, 3] - boxes[:, 1] + pixel_offset)
    return area
