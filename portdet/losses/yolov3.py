"""YOLOv3's predictions and loss (darknet's yolo_layer.c as cross entropies; mindspore-ai/models `yolo.py`)."""

from __future__ import annotations

from typing import Any, Literal

from portdet import ops
from portdet.assign.yolov3 import Anchors, Smoothing, assign
from portdet.losses.boxes import pairwise_iou
from portdet.spec import function

SizeLoss = Literal["squared", "absolute"]


@function
def rows(head: Any, outputs: int) -> Any:
    """A level's raw output (B, 3 * outputs, gh, gw) -> (B, gh, gw, 3, outputs)."""
    split = ops.reshape(head, shape=(head.shape[0], 3, outputs, head.shape[2], head.shape[3]))
    return ops.permute(split, axes=(0, 3, 4, 1, 2))


@function
def decode(raw: Any, images: Any, anchors: Anchors) -> Any:
    """Raw rows (B, gh, gw, 3, >= 4) -> boxes (B, gh * gw * 3, 4): centre and size in shares of the image."""
    height, width = raw.shape[1], raw.shape[2]
    column = ops.reshape(ops.iota(raw, length=width), shape=(width, 1, 1))
    row = ops.reshape(ops.iota(raw, length=height), shape=(height, 1, 1, 1))
    x = (ops.sigmoid(raw[..., 0:1]) + column) / width
    y = (ops.sigmoid(raw[..., 1:2]) + row) / height
    extent = ops.constant(raw, values=(images.shape[3], images.shape[2]))
    size = ops.exp(raw[..., 2:4]) * ops.constant(raw, values=anchors) / extent
    return ops.reshape(ops.concat([x, y, size], axis=4), shape=(raw.shape[0], -1, 4))


@function
def level_predictions(head: Any, images: Any, anchors: Anchors, classes: int) -> Any:
    """A level's raw output -> (B, gh * gw * 3, 5 + classes): box, objectness, class probabilities."""
    raw = rows(head, classes + 5)
    scores = ops.reshape(ops.sigmoid(raw[..., 4:]), shape=(raw.shape[0], -1, classes + 1))
    return ops.concat([decode(raw, images, anchors), scores], axis=2)


@function
def level_loss(
    head: Any,
    images: Any,
    place: Any,
    log_size: Any,
    best: Any,
    labels: Any,
    valid: Any,
    first: int,
    anchors: Anchors,
    classes: int,
    label_smooth: Smoothing,
    ignore_threshold: float,
    ignore_all: bool,
    box_weight: float,
    size_loss: SizeLoss,
    scores: Any = None,
) -> Any:
    """The terms xy, wh, objectness, class of one level (4,): sums over the batch, over the batch size.

    Box terms weigh box_weight * (2 - w * h) (shares of the image); that of width and height is half the square of the
    error, or its size (ppdet). scores (B, T): what a box weighs in all terms, and its cell in objectness; one of 0 asks
    for nothing. A cell without a box counts as background unless its
    prediction overlaps a box of this level (ignore_all: any box) by ignore_threshold or more.
    """
    raw = rows(head, classes + 5)
    flat = ops.reshape(raw, shape=(raw.shape[0], -1, classes + 5))
    taken = valid if scores is None else ops.logical_and(valid, ops.greater(scores, 0.0))
    row, winner, offset, targets = assign(head, place, best, labels, taken, first, classes, label_smooth)
    picked = ops.gather(flat, row)
    truth = ops.cast(place, dtype="float")
    hit = ops.cast(winner, dtype="float")[:, :, None]
    share = hit if scores is None else hit * scores[:, :, None]
    weight = share * (2.0 - truth[..., 2:3] * truth[..., 3:4])
    if box_weight != 1:
        weight = weight * box_weight
    error = log_size - picked[..., 2:4]
    xy = ops.bce_with_logits(picked[..., 0:2], offset) * weight
    wh = (ops.abs(error) if size_loss == "absolute" else error * error * 0.5) * weight
    category = ops.bce_with_logits(picked[..., 5:], targets) * share

    counted = ops.cast(valid, dtype="float")[:, :, None] if ignore_all else hit
    boxes = decode(ops.stop_gradient(raw), images, anchors)
    overlap = pairwise_iou(boxes, truth) * ops.permute(counted, axes=(0, 2, 1))
    free = ops.cast(ops.less(ops.max(overlap, axis=2), ignore_threshold), dtype="float")
    place_of = ops.equal(ops.iota(row, length=flat.shape[1])[:, None], row[:, None, :])
    found = ops.cast(ops.logical_and(place_of, winner[:, None, :]), dtype="float")
    due = None if scores is None else ops.max(found * scores[:, None, :], axis=2)
    found = ops.max(found, axis=2)
    objectness = ops.bce_with_logits(flat[..., 4], found) * ((found if due is None else due) + (1.0 - found) * free)
    terms = [ops.sum(term, axis=None) for term in (xy, wh, objectness, category)]
    return ops.stack(terms, axis=0) / head.shape[0]
