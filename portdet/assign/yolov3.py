"""YOLOv3's targets (Redmon and Farhadi 2018; mindspore-ai/models `transforms.py`): one anchor and one cell a box.

Index arithmetic is float32 by specification, in the reference too, so that every backend finds the same cells.
"""

from __future__ import annotations

from typing import Any

from portdet import ops
from portdet.spec import function

Anchors = tuple[tuple[float, float], ...]
"""(width, height) in pixels of the network input."""


@function
def normalise_boxes(boxes: Any, images: Any, round_centres: bool) -> tuple[Any, Any]:
    """Boxes (B, T, 4) x1 y1 x2 y2 in pixels -> centres and sizes (B, T, 2) in shares of width and height.

    round_centres: whole pixels, as mindspore-ai/models has it (`// 2.`); darknet and PaddleDetection do not.
    """
    boxes = ops.cast(boxes, dtype="float32")
    extent = ops.constant(boxes, values=(images.shape[3], images.shape[2]))
    centre = (boxes[..., 0:2] + boxes[..., 2:4]) / 2.0
    if round_centres:
        centre = ops.floor(centre)
    return centre / extent, (boxes[..., 2:4] - boxes[..., 0:2]) / extent


@function
def best_anchors(boxes: Any, anchors: Anchors) -> Any:
    """Boxes (B, T, 4) in pixels -> index (B, T) int32 of the anchor of largest centred IoU; the first at ties."""
    boxes = ops.cast(boxes, dtype="float32")
    size = (boxes[..., 2:4] - boxes[..., 0:2])[:, :, None, :]
    shapes = ops.constant(size, values=anchors)
    smaller = ops.minimum(size, shapes)
    inter = smaller[..., 0] * smaller[..., 1]
    return ops.argmax(inter / (size[..., 0] * size[..., 1] + shapes[..., 0] * shapes[..., 1] - inter), axis=2)


@function
def cells(centre: Any, grid: Any) -> Any:
    """floor(centre * grid) of the exact product: column and row (B, T, 2) float32.

    The original multiplies in float64. Here the rounded product is corrected where it reached an integer that the
    exact one stays below (Dekker's product, 4097 = 2^12 + 1): a box centred on a cell border would else change cells.
    """
    product = centre * grid
    cell = ops.floor(product)
    high = centre * 4097.0 - (centre * 4097.0 - centre)
    error = (high * grid - product) + (centre - high) * grid
    return cell - ops.cast(ops.logical_and(ops.equal(product, cell), ops.less(error, 0.0)), dtype="float32")


@function
def assign(
    head: Any,
    centre: Any,
    best: Any,
    labels: Any,
    valid: Any,
    first: int,
    classes: int,
    label_smooth: float,
) -> tuple[Any, Any, Any, Any]:
    """Targets of one level, whose anchors are number first .. first + 2.

    head (B, D, gh, gw), centre (B, T, 2), best (B, T), labels (B, T), valid (B, T) bool ->
    row (B, T) int32: which prediction answers, in the order row, column, anchor; 0 for boxes of other levels;
    winner (B, T) bool: boxes of this level; of several in one place the last, as later ones overwrite;
    offset (B, T, 2): centre within its cell, 0..1;
    targets (B, T, classes): 1 for every class that any box in that place has; smoothed, only the winner's own.
    """
    grid = ops.constant(centre, values=(head.shape[3], head.shape[2]))
    cell = cells(centre, grid)
    mine = ops.logical_and(valid, ops.logical_and(ops.less(best, first + 3), ops.greater(best, first - 1)))
    anchor = ops.cast(best, dtype="float32") - float(first)
    row = ((cell[..., 1] * head.shape[3] + cell[..., 0]) * 3.0 + anchor) * ops.cast(mine, dtype="float32")
    both = ops.logical_and(mine[:, :, None], mine[:, None, :])
    same = ops.logical_and(both, ops.equal(row[:, :, None], row[:, None, :]))
    turn = ops.iota(row, length=row.shape[1])
    later = ops.logical_and(same, ops.greater(turn, turn[:, None]))
    winner = ops.logical_and(mine, ops.less(ops.max(ops.cast(later, dtype="float"), axis=2), 0.5))
    own = ops.cast(ops.equal(labels[:, :, None], ops.iota(labels, length=classes)), dtype="float")
    if label_smooth:
        targets = own * (1 - label_smooth) + (1 - own) * (label_smooth / (classes - 1))
    else:
        targets = ops.minimum(ops.matmul(ops.cast(same, dtype="float"), own), 1.0)
    return ops.cast(row, dtype="int32"), winner, centre * grid - cell, targets
