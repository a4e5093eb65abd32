"""PP-YOLO's loss and decoding without a network: the three raw heads are inputs. And fixture G2."""

from __future__ import annotations

from typing import Any

import numpy as np

from portdet import ops
from portdet.assign.ppyolo import box_targets
from portdet.ir.graph import DType, ModuleGraph
from portdet.ir.trace import graph
from portdet.losses.ppyolo import level_loss, level_predictions, terms
from portdet.models.yolov3 import ANCHORS
from portdet.session import Arrays
from portdet.spec import Module

# of ppdet 2.4's own loss classes on Paddle 3.3.1, which gave five decimals
G2_LOSSES = {
    "xy": 1.34432, "wh": 2.47091, "iou": 5.63342, "iou_aware": 1.06786, "obj": 456.09161, "cls": 3.62147,
    "loss": 470.22958,
}  # fmt: skip
# and of the loss's gradients there: l2 norm, and sum of the IoU logits' magnitudes
G2_GRADIENTS = {
    "head32": (2.46905350, 0.07620774), "head16": (4.17117588, 0.04713444), "head8": (8.13607796, 0.08780747)
}  # fmt: skip
HEADS = ("head32", "head16", "head8")
FIRST = {"head32": 6, "head16": 3, "head8": 0}


class Net(Module):
    """`loss` returns the terms, their sum, and what `predict` of a detector would: all from raw heads."""

    def __init__(
        self,
        classes: int,
        scale: float = 1.05,
        iou_weight: float = 2.5,
        iou_aware: bool = True,
        label_smooth: bool = False,
        ignore_threshold: float = 0.7,
        iou_factor: float = 0.4,
        conf: float = 0.01,
    ) -> None:
        self.classes, self.scale, self.iou_weight, self.iou_aware = classes, scale, iou_weight, iou_aware
        self.label_smooth, self.ignore_threshold = label_smooth, ignore_threshold
        self.iou_factor, self.conf = iou_factor, conf

    def loss(
        self, head32: Any, head16: Any, head8: Any, images: Any, boxes: Any, labels: Any, valid: Any, scores: Any
    ) -> dict[str, Any]:
        place, log_size, best, taken = box_targets(boxes, images, valid, scores, ANCHORS)
        levels, found = [], []
        for head, first in ((head32, 6), (head16, 3), (head8, 0)):
            anchors = ANCHORS[first : first + 3]
            level = level_loss(
                head, images, place, log_size, best, labels, valid, taken, scores, first, anchors, self.classes,
                self.scale, self.iou_weight, self.iou_aware, self.label_smooth, self.ignore_threshold,
            )  # fmt: skip
            levels.append(level)
            predictions = level_predictions(
                head, images, anchors, self.classes, self.scale, self.iou_aware, self.iou_factor, self.conf
            )
            found.append(predictions)
        big, medium, small = levels
        parts = big + medium + small
        named = {name: parts[i] for i, name in enumerate(terms(self.iou_aware))}
        return {"loss": ops.sum(parts, axis=None), **named, "predictions": ops.concat(found, axis=1)}


def traced(inputs: Arrays, **fields: Any) -> ModuleGraph:
    """The graph of `Net` for inputs like these."""
    kinds: dict[str, DType] = {"f": "float", "i": "int32", "b": "bool"}
    types = {name: (array.shape, kinds[array.dtype.kind]) for name, array in inputs.items()}
    return graph(Net(**fields), {"loss": (True, types)})


def g2() -> Arrays:
    """The inputs whose losses G2_LOSSES are: four classes, 96 px, boxes of two mixed images each."""
    random, side = np.random.RandomState(0), 96
    inputs: Arrays = {
        name: random.randn(2, 3 * (4 + 6), side // stride, side // stride).astype(np.float32)
        for name, stride in zip(HEADS, (32, 16, 8), strict=True)
    }
    given = (  # centre, size in shares of the image; class; score
        ((0.30, 0.40, 0.35, 0.45, 1, 0.7), (0.7, 0.25, 0.1, 0.12, 3, 0.3)),
        ((0.5, 0.5, 0.9, 0.8, 0, 1.0), (0.1, 0.9, 0.15, 0.15, 2, 1.0)),
    )
    boxes, labels = np.zeros((2, 50, 4), np.float32), np.zeros((2, 50), np.int32)
    scores = np.zeros((2, 50), np.float32)
    for i, image in enumerate(given):
        for j, (x, y, w, h, label, score) in enumerate(image):
            boxes[i, j] = (x - w / 2) * side, (y - h / 2) * side, (x + w / 2) * side, (y + h / 2) * side
            labels[i, j], scores[i, j] = label, score
    images = np.zeros((2, 3, side, side), np.float32)  # only their size is read
    return {**inputs, "images": images, "boxes": boxes, "labels": labels, "valid": scores > 0, "scores": scores}
