"""PP-YOLO's targets (PaddleDetection `Gt2YoloTarget`): YOLOv3's one anchor and one cell a box, in shares of the image.

Index arithmetic is float32 by specification, in the order of PaddleDetection's `NormalizeBox` and `BboxXYXY2XYWH`, so
that a centre on the border of two cells falls into the same one. Cells and collisions are those of
`portdet.assign.yolov3.assign`: the last box of a place sets its numbers, class bits of all add up.
"""

from __future__ import annotations

from typing import Any

from portdet import ops
from portdet.assign.yolov3 import Anchors
from portdet.spec import function


@function
def box_targets(boxes: Any, images: Any, valid: Any, scores: Any, anchors: Anchors) -> tuple[Any, Any, Any, Any]:
    """What each box asks for, whatever its level. boxes (B, T, 4): x1 y1 x2 y2 in pixels of the input; scores (B, T):
    the weight of its image in a mixup, 1 without ->

    place (B, T, 4): centre and size in shares of width and height;
    log_size (B, T, 2): log of the size over its anchor's;
    best (B, T) int32: the anchor of largest centred IoU, the first at ties;
    taken (B, T) bool: boxes that get a target: valid, with an area and a score.
    """
    boxes = ops.cast(boxes, dtype="float32")
    extent = ops.constant(boxes, values=(images.shape[3], images.shape[2]))
    low = boxes[..., 0:2] / extent
    size = boxes[..., 2:4] / extent - low
    place = ops.concat([low + size / 2.0, size], axis=2)
    table = ops.constant(boxes, values=(anchors,))
    shares = table / extent
    smaller = ops.minimum(size[:, :, None, :], shares[:, None, :, :])
    inter = smaller[..., 0] * smaller[..., 1]
    area = size[..., 0] * size[..., 1]
    union = area[:, :, None] + (shares[..., 0] * shares[..., 1])[:, None, :] - inter
    best = ops.argmax(inter / union, axis=2)
    nearest = ops.gather(ops.broadcast_to(table, shape=(boxes.shape[0], len(anchors), 2)), best)
    taken = ops.logical_and(valid, ops.logical_and(ops.greater(area, 0.0), ops.greater(scores, 0.0)))
    # padding has size 0, and its log must be finite
    ratio = ops.where(ops.greater(size, 0.0), size, 1.0) * extent / nearest
    return place, ops.log(ops.cast(ratio, dtype="float")), best, taken
