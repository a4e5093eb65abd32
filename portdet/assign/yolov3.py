"""YOLOv3's targets (Redmon and Farhadi 2018; mindspore-ai/models `transforms.py`): one anchor and one cell a box.

Index arithmetic is float32 by specification, in the reference too, so that every backend finds the same cells.
"""

from __future__ import annotations

from typing import Any, Literal

from portdet import ops
from portdet.spec import function

Anchors = tuple[tuple[float, float], ...]
"""(width, height) in pixels of the network input."""

Smoothing = float | Literal["ppdet"]


@function
def box_targets(boxes: Any, images: Any, anchors: Anchors, round_centres: bool) -> tuple[Any, Any, Any]:
    """What each box asks for, whatever its level. boxes (B, T, 4): x1 y1 x2 y2 in pixels of the input ->

    place (B, T, 4): centre and size in shares of width and height;
    log_size (B, T, 2): log of the size over its anchor's;
    best (B, T) int32: the anchor of largest centred IoU, the first at ties.

    round_centres: whole pixels, as mindspore-ai/models has it (`// 2.`); darknet and PaddleDetection do not.
    """
    boxes = ops.cast(boxes, dtype="float32")
    centre = (boxes[..., 0:2] + boxes[..., 2:4]) / 2.0
    if round_centres:
        centre = ops.floor(centre)
    size = boxes[..., 2:4] - boxes[..., 0:2]
    extent = ops.constant(boxes, values=(images.shape[3], images.shape[2]))
    place = ops.concat([centre / extent, size / extent], axis=2)
    table = ops.constant(boxes, values=(anchors,))
    smaller = ops.minimum(size[:, :, None, :], table[:, None, :, :])
    inter = smaller[..., 0] * smaller[..., 1]
    area = size[..., 0:1] * size[..., 1:2] + (table[..., 0] * table[..., 1])[:, None, :]
    best = ops.argmax(inter / (area - inter), axis=2)
    nearest = ops.gather(ops.broadcast_to(table, shape=(boxes.shape[0], len(anchors), 2)), best)
    # a share of 0 counts as 1, as in the original; padding has size 0, and its log must be finite
    ratio = ops.where(size > 0.0, size, extent) / nearest
    return place, ops.log(ops.cast(ratio, dtype="float")), best


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
    below = ops.logical_and(ops.equal(product, cell), ops.less(error, 0.0))
    return cell - ops.cast(below, dtype="float32")


@function
def assign(
    head: Any, place: Any, best: Any, labels: Any, valid: Any, first: int, classes: int, label_smooth: Smoothing
) -> tuple[Any, Any, Any, Any]:
    """Targets of one level, whose anchors are number first .. first + 2.

    head (B, D, gh, gw), place (B, T, 4), best and labels (B, T) int32, valid (B, T) bool ->
    row (B, T) int32: which prediction answers, in the order row, column, anchor; 0 for boxes of other levels;
    winner (B, T) bool: boxes of this level; of several in one place the last, as later ones overwrite;
    offset (B, T, 2): centre within its cell, 0..1;
    targets (B, T, classes): 1 for every class that any box in that place has. label_smooth: s as mindspore-ai/models
    has it, 1 - s for the winner's class alone and s / (classes - 1) for the others; 'ppdet': 1 - d and d for d =
    min(1 / classes, 1 / 40).
    """
    grid = ops.constant(place, values=(head.shape[3], head.shape[2]))
    centre = place[..., 0:2]
    cell = cells(centre, grid)
    mine = ops.logical_and(valid, ops.logical_and(ops.less(best, first + 3), ops.greater(best, first - 1)))
    anchor = ops.cast(best, dtype="float32") - float(first)
    row = ((cell[..., 1] * head.shape[3] + cell[..., 0]) * 3.0 + anchor) * ops.cast(mine, dtype="float32")
    both = ops.logical_and(mine[:, :, None], mine[:, None, :])
    same = ops.logical_and(both, ops.equal(row[:, :, None], row[:, None, :]))
    turn = ops.iota(row, length=row.shape[1])
    later = ops.cast(ops.logical_and(same, ops.greater(turn, turn[:, None])), dtype="float")
    winner = ops.logical_and(mine, ops.less(ops.max(later, axis=2), 0.5))
    own = ops.cast(ops.equal(labels[:, :, None], ops.iota(labels, length=classes)), dtype="float")
    if isinstance(label_smooth, float) and label_smooth:
        targets = own * (1 - label_smooth) + (1 - own) * (label_smooth / (classes - 1))
    else:
        targets = ops.minimum(ops.matmul(ops.cast(same, dtype="float"), own), 1.0)
    if label_smooth == "ppdet":
        small = min(1 / classes, 1 / 40)
        targets = targets * (1 - 2 * small) + small
    offset = ops.cast(centre * grid - cell, dtype="float")
    return ops.cast(row, dtype="int32"), winner, offset, targets
