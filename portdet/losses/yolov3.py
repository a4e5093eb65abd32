"""YOLOv3's loss (darknet's yolo_layer.c as sums of cross entropies; mindspore-ai/models `yolo.py`)."""

from __future__ import annotations

from typing import Any

from portdet import ops
from portdet.assign.yolov3 import Anchors, assign
from portdet.losses.boxes import pairwise_iou
from portdet.spec import function


@function
def rows(head: Any, outputs: int) -> Any:
    """A level's raw output (B, 3 * outputs, gh, gw) -> (B, gh, gw, 3, outputs)."""
    split = ops.reshape(head, shape=(head.shape[0], 3, outputs, head.shape[2], head.shape[3]))
    return ops.permute(split, axes=(0, 3, 4, 1, 2))


@function
def decode(raw: Any, images: Any, anchors: Anchors) -> Any:
    """Raw rows (B, gh, gw, 3, >= 4) -> boxes (B, gh * gw * 3, 4): centre and size in shares of the image."""
    height, width = raw.shape[1], raw.shape[2]
    column = ops.reshape(ops.iota(raw, length=width), shape=(1, width, 1, 1))
    row = ops.reshape(ops.iota(raw, length=height), shape=(height, 1, 1, 1))
    x = (ops.sigmoid(raw[..., 0:1]) + column) / width
    y = (ops.sigmoid(raw[..., 1:2]) + row) / height
    extent = ops.constant(raw, values=(images.shape[3], images.shape[2]))
    size = ops.exp(raw[..., 2:4]) * ops.constant(raw, values=anchors) / extent
    return ops.reshape(ops.concat([x, y, size], axis=4), shape=(raw.shape[0], -1, 4))


@function
def level_loss(
    head: Any,
    images: Any,
    centre: Any,
    size: Any,
    best: Any,
    labels: Any,
    valid: Any,
    first: int,
    anchors: Anchors,
    classes: int,
    label_smooth: float,
    ignore_threshold: float,
    ignore_all: bool,
) -> tuple[Any, Any, Any, Any]:
    """Sums over one level and the batch of the terms xy, wh, objectness, class.

    Box terms weigh 2 - w * h (shares of the image). A cell without a box counts as background unless its prediction
    overlaps a box of this level (ignore_all: any box) by ignore_threshold or more.
    """
    raw = rows(head, classes + 5)
    boxes = ops.concat([centre, size], axis=2)
    row, winner, offset, targets = assign(head, centre, best, labels, valid, first, classes, label_smooth)
    flat = ops.reshape(raw, shape=(raw.shape[0], -1, classes + 5))
    picked = ops.gather(flat, row)
    anchor = ops.gather(
        ops.broadcast_to(ops.constant(flat, values=(anchors,)), shape=(row.shape[0], 3, 2)),
        ops.cast(ops.cast(winner, dtype="float") * ops.cast(best - first, dtype="float"), dtype="int32"),
    )
    hit = ops.cast(winner, dtype="float")
    weight = hit * (2.0 - ops.cast(size[..., 0] * size[..., 1], dtype="float"))
    extent = ops.constant(size, values=(images.shape[3], images.shape[2]))
    pixels = ops.where(ops.greater(size, 0.0), size, ops.constant(size, values=(1.0, 1.0))) * extent
    log_size = ops.log(ops.cast(pixels, dtype="float") / anchor)
    error = log_size - picked[..., 2:4]
    xy = ops.sum(ops.bce_with_logits(picked[..., 0:2], ops.cast(offset, dtype="float")) * weight[:, :, None], axis=None)
    wh = ops.sum(error * error * weight[:, :, None], axis=None) * 0.5
    category = ops.sum(ops.bce_with_logits(picked[..., 5:], targets) * hit[:, :, None], axis=None)

    counted = valid if ignore_all else winner
    overlap = pairwise_iou(decode(ops.stop_gradient(raw), images, anchors), ops.cast(boxes, dtype="float"))
    overlap = ops.max(overlap * ops.cast(counted, dtype="float")[:, None, :], axis=2)
    place = ops.equal(ops.iota(row, length=flat.shape[1])[:, None], row[:, None, :])
    found = ops.max(ops.cast(ops.logical_and(place, winner[:, None, :]), dtype="float"), axis=2)
    background = (1.0 - found) * ops.cast(ops.less(overlap, ignore_threshold), dtype="float")
    objectness = ops.sum(ops.bce_with_logits(flat[..., 4], found) * (found + background), axis=None)
    return xy, wh, objectness, category
