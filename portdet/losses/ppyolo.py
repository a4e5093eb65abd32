"""PP-YOLO's loss and decoding (Long et al. 2020; PaddleDetection `YOLOv3Loss`, `YOLOv3Head`, Paddle's `yolo_box`).

A row of predictions is x, y, w, h, objectness, classes and, in an IoU-aware head, the logit of the expected IoU.
"""

from __future__ import annotations

from typing import Any

from portdet import ops
from portdet.assign.yolov3 import Anchors, assign
from portdet.losses.yolov3 import rows
from portdet.spec import function


def terms(iou_aware: bool) -> tuple[str, ...]:
    """Names of what `level_loss` returns, in order."""
    return ("xy", "wh", "iou", "iou_aware", "obj", "cls") if iou_aware else ("xy", "wh", "iou", "obj", "cls")


@function
def level_rows(head: Any, classes: int, iou_aware: bool) -> Any:
    """A level's raw output (B, 3 * (5 + classes), gh, gw) -> (B, gh, gw, 3, 5 + classes).

    iou_aware: three channels more, in front, one IoU logit an anchor; it becomes the last of its row.
    """
    if not iou_aware:
        return rows(head, classes + 5)
    expected = ops.permute(head[:, :3], axes=(0, 2, 3, 1))
    return ops.concat([rows(head[:, 3:], classes + 5), expected[..., None]], axis=4)


@function
def decode(raw: Any, images: Any, anchors: Anchors, scale: float) -> Any:
    """Raw rows (B, gh, gw, 3, >= 4) -> boxes (B, gh * gw * 3, 4): centre and size in shares of the image.

    Within its cell a centre is scale * sigmoid - (scale - 1) / 2, so that it can reach the cell's border.
    """
    height, width = raw.shape[1], raw.shape[2]
    column = ops.reshape(ops.iota(raw, length=width), shape=(width, 1, 1))
    row = ops.reshape(ops.iota(raw, length=height), shape=(height, 1, 1, 1))
    centre = within(raw[..., 0:2], scale)
    x = (centre[..., 0:1] + column) / width
    y = (centre[..., 1:2] + row) / height
    extent = ops.constant(raw, values=(images.shape[3], images.shape[2]))
    size = ops.exp(raw[..., 2:4]) * ops.constant(raw, values=anchors) / extent
    return ops.reshape(ops.concat([x, y, size], axis=4), shape=(raw.shape[0], -1, 4))


@function
def within(logits: Any, scale: float) -> Any:
    """Where in its cell a centre lies, from -(scale - 1) / 2 to (scale + 1) / 2."""
    return (ops.sigmoid(logits) - 0.5) * scale + 0.5


@function
def iou(a: Any, b: Any) -> Any:
    """Overlap of boxes (..., 4) in centre form, with broadcasting; 1e-9 is added to the union, as upstream."""
    low = ops.maximum(a[..., 0:2] - a[..., 2:4] / 2.0, b[..., 0:2] - b[..., 2:4] / 2.0)
    high = ops.minimum(a[..., 0:2] + a[..., 2:4] / 2.0, b[..., 0:2] + b[..., 2:4] / 2.0)
    side = ops.maximum(high - low, 0.0)
    inter = side[..., 0] * side[..., 1]
    return inter / (a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - inter + 1e-9)


@function
def distance(a: Any, b: Any) -> Any:
    """|a - b|."""
    return ops.maximum(a - b, b - a)


@function
def level_loss(
    head: Any,
    images: Any,
    place: Any,
    log_size: Any,
    best: Any,
    labels: Any,
    valid: Any,
    taken: Any,
    scores: Any,
    first: int,
    anchors: Anchors,
    classes: int,
    scale: float,
    iou_weight: float,
    iou_aware: bool,
    label_smooth: bool,
    ignore_threshold: float,
) -> Any:
    """The `terms` of one level, 6 or 5: sums over the batch, over the batch size.

    head (B, D, gh, gw); place, log_size, best, taken: of `box_targets`; labels (B, T) int32, valid (B, T) bool, scores
    (B, T). first: number of the level's first anchor. A box weighs its score, in the terms xy, wh, iou also
    2 - w * h (shares of the image). A cell without a box counts as background unless its prediction overlaps any valid
    box by more than ignore_threshold. label_smooth: class bits become 1 - d and d, d = min(1 / classes, 1 / 40).
    """
    raw = level_rows(head, classes, iou_aware)
    flat = ops.reshape(raw, shape=(raw.shape[0], -1, classes + (6 if iou_aware else 5)))
    row, winner, offset, targets = assign(
        head, place, best, labels, taken, first, classes, "ppdet" if label_smooth else 0.0
    )
    picked = ops.gather(flat, row)
    truth = ops.cast(place, dtype="float")
    score = ops.cast(winner, dtype="float") * scores
    weight = score * (2.0 - truth[..., 2] * truth[..., 3])

    centre = within(picked[..., 0:2], scale)
    xy = ops.bce_with_logits(picked[..., 0:2], offset) if scale == 1 else distance(centre, offset)
    wh = distance(picked[..., 2:4], log_size)
    # relative to the truth: only the row that answers for a box is decoded with a gradient
    grid = ops.constant(raw, values=(raw.shape[2], raw.shape[1]))
    moved = truth[..., 0:2] + (centre - offset) / grid
    resized = truth[..., 2:4] * ops.exp(picked[..., 2:4] - log_size)
    overlap = iou(ops.concat([moved, resized], axis=2), truth)
    parts = [xy * weight[:, :, None], wh * weight[:, :, None], (1.0 - overlap * overlap) * weight * iou_weight]
    if iou_aware:
        parts.append(ops.bce_with_logits(picked[..., 5 + classes], ops.stop_gradient(overlap)) * score)
    parts.append(objectness(flat, raw, images, row, score, truth, valid, anchors, scale, ignore_threshold))
    parts.append(ops.bce_with_logits(picked[..., 5 : 5 + classes], targets) * score[:, :, None])
    return ops.stack([ops.sum(part, axis=None) for part in parts], axis=0) / head.shape[0]


@function
def objectness(
    flat: Any,
    raw: Any,
    images: Any,
    row: Any,
    score: Any,
    truth: Any,
    valid: Any,
    anchors: Anchors,
    scale: float,
    ignore_threshold: float,
) -> Any:
    """Cross entropy of the objectness of every row (B, N): positives times their score, spared ones times 0."""
    boxes = decode(ops.stop_gradient(raw), images, anchors, scale)
    overlap = iou(boxes[:, :, None, :], truth[:, None, :, :]) * ops.cast(valid, dtype="float")[:, None, :]
    spared = ops.cast(ops.greater(ops.max(overlap, axis=2), ignore_threshold), dtype="float")
    place_of = ops.equal(ops.iota(row, length=flat.shape[1])[:, None], row[:, None, :])
    found = ops.max(ops.cast(place_of, dtype="float") * score[:, None, :], axis=2)
    positive = ops.cast(ops.greater(found, 0.0), dtype="float")
    return ops.bce_with_logits(flat[..., 4], positive) * (found + (1.0 - positive) * (1.0 - spared))


@function
def aware(logits: Any, expected: Any, factor: float) -> Any:
    """The logit of sigmoid(logits) ** (1 - factor) * sigmoid(expected) ** factor, clipped as upstream."""
    # a sigmoid of 1e-30 gives far less than the 1e-7 that is clipped to, whatever the other one is
    known = ops.log(ops.maximum(ops.sigmoid(logits), 1e-30)) * (1.0 - factor)
    product = ops.exp(known + ops.log(ops.maximum(ops.sigmoid(expected), 1e-30)) * factor)
    return -ops.log(ops.maximum(1.0 / ops.maximum(product, 1e-7) - 1.0, 1e-7))


@function
def level_predictions(
    head: Any,
    images: Any,
    anchors: Anchors,
    classes: int,
    scale: float,
    iou_aware: bool,
    iou_factor: float,
    conf: float,
) -> Any:
    """A level's raw output -> (B, 3 * gh * gw, 4 + classes): corners in shares of the image, not clipped, and
    objectness times class probability. All cells of an anchor come before the next anchor's, as in `yolo_box`.

    A row whose objectness is less than conf is all zeros. In an IoU-aware head the objectness is `aware`.
    """
    raw = level_rows(head, classes, iou_aware)
    flat = ops.reshape(raw, shape=(raw.shape[0], -1, classes + (6 if iou_aware else 5)))
    logits = flat[..., 4:5]
    if iou_aware:
        logits = aware(logits, flat[..., 5 + classes :], iou_factor)
    confidence = ops.sigmoid(logits)
    boxes = decode(raw, images, anchors, scale)
    centre, half = boxes[..., 0:2], boxes[..., 2:4] / 2.0
    scores = ops.sigmoid(flat[..., 5 : 5 + classes]) * confidence
    found = ops.concat([centre - half, centre + half, scores], axis=2)
    found = ops.where(ops.less(confidence, conf), 0.0, found)
    by_cell = ops.reshape(found, shape=(raw.shape[0], -1, 3, 4 + classes))
    return ops.reshape(ops.permute(by_cell, axes=(0, 2, 1, 3)), shape=(raw.shape[0], -1, 4 + classes))
