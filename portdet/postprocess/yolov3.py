"""From YOLOv3's decoded output to boxes in the pixels of the original image.

The rule of mindspore-ai/models `DetectionEngine` (eval.py): one class per anchor, a score cut, NMS per image and
category. Where darknet differs it is an argument: `multi_label`, `clip="none"`, `pixel_offset=0`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from portdet.data.transforms import letterbox_place
from portdet.errors import PortdetError
from portdet.postprocess.detections import Detections
from portdet.postprocess.nms import Kind, nms
from portdet.session import Array

Clip = Literal["corner", "none"]


def detections(
    decoded: NDArray[np.float32],
    sizes: Array,
    *,
    conf: float = 0.001,
    nms_threshold: float = 0.5,
    pixel_offset: float = 1.0,
    kind: Kind = "greedy",
    limit: int = 0,
    clip: Clip = "corner",
    multi_label: bool = False,
) -> list[Detections]:
    """Boxes of a batch.

    `decoded` (B, N, 5+C) float32: centre x, centre y, width, height as shares of the input, objectness, class
    probabilities; anchors of the small, medium, big level in this order. `sizes` (B, 2): original width, height.
    Score = objectness * class probability; what is below `conf` goes. `multi_label` makes a box of every class that
    reaches `conf`, not only of the best one. `limit` > 0: at most that many boxes per image and class.
    `clip="corner"` moves the left and top edge to 0 at least and cuts width and height to the image's; so a box may
    still pass the right or bottom edge, as in the original. Raises PortdetError for other shapes.
    """
    if decoded.ndim != 3 or decoded.shape[2] < 6 or sizes.shape != (len(decoded), 2):
        raise PortdetError(
            f"expected decoded (B, N, 5+classes) and sizes (B, 2), got {decoded.shape} and {sizes.shape}",
            fix="pass the model's decoded output and one (width, height) per image",
        )
    found = []
    for rows, size in zip(decoded, sizes, strict=True):
        boxes, scores, labels = _candidates(rows, conf, multi_label)
        boxes = _to_pixels(boxes, size.astype(np.float32), clip)
        keep = nms(boxes, scores, labels, threshold=nms_threshold, pixel_offset=pixel_offset, kind=kind, limit=limit)
        found.append(Detections(boxes[keep], scores[keep], labels[keep]))
    return found


def _candidates(rows: NDArray[np.float32], conf: float, multi_label: bool) -> tuple[Array, Array, Array]:
    """Boxes (as decoded), scores, labels that reach `conf`; a score that is not a number never does."""
    objectness, classes = rows[:, 4], rows[:, 5:]
    if multi_label:
        scores = objectness[:, None] * classes
        anchors, labels = np.nonzero(scores >= conf)
        return rows[anchors, :4], scores[anchors, labels], labels
    best = classes.argmax(1)
    score = objectness * classes[np.arange(len(rows)), best]
    anchors = np.flatnonzero(score >= conf)
    return rows[anchors, :4], score[anchors], best[anchors]


def _to_pixels(boxes: NDArray[np.float32], size: NDArray[np.float32], clip: Clip) -> NDArray[np.float32]:
    wh = boxes[:, 2:] * size
    corner = boxes[:, :2] * size - wh / 2
    if clip == "corner":
        corner, wh = np.maximum(corner, 0), np.minimum(wh, size)
    return np.concatenate([corner, corner + wh], axis=1)


def without_background(decoded: NDArray[np.float32], least: float) -> NDArray[np.float32]:
    """Predictions whose objectness is below `least` as zeros, as Paddle's `yolo_box` returns them."""
    if not least:
        return decoded
    return np.where(decoded[..., 4:5] < np.float32(least), np.float32(0), decoded)


def by_class(decoded: NDArray[np.float32]) -> NDArray[np.float32]:
    """(B, N, 5+C) -> (B, N, 4+C): corners in shares of the image, and the product with objectness for every class."""
    half = decoded[..., 2:4] / np.float32(2)
    corners = (decoded[..., :2] - half, decoded[..., :2] + half)
    return np.concatenate([*corners, decoded[..., 5:] * decoded[..., 4:5]], axis=2)


def without_border(decoded: NDArray[np.float32], sizes: Array, size: int) -> NDArray[np.float32]:
    """Boxes of letterboxed inputs (side `size`) as shares of the images themselves; see `detections`."""
    out = decoded.copy()
    for one, (width, height) in zip(out, sizes.tolist(), strict=True):
        left, top, inner_width, inner_height = letterbox_place(width, height, size)
        one[:, 0:2] = (one[:, 0:2] * size - (left, top)) / (inner_width, inner_height)
        one[:, 2:4] *= (size / inner_width, size / inner_height)
    return out
