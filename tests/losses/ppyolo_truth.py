"""PP-YOLO's targets by a loop over boxes and its loss over every cell, with torch in float64: PaddleDetection's rules
written down a second time, densely, as upstream has them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from portdet.models.yolov3 import ANCHORS
from portdet.session import Array, Arrays
from tests.backends.ppyolo_spec import HEADS

bce = torch.nn.functional.binary_cross_entropy_with_logits
STRIDES = (32, 16, 8)
Fault = Literal["", "iou_once", "iou_attached", "ignore_level", "no_scores", "no_size_weight", "ignore_below"]


def shares(boxes: Array, width: int, height: int) -> Array:
    """x1 y1 x2 y2 in pixels -> centre and size in shares, each step rounded to float32 as PaddleDetection does."""
    boxes = boxes.astype(np.float32) / np.array([width, height] * 2, np.float32)
    size = boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([boxes[:, :2] + size / np.float32(2), size], axis=1)


def targets(inputs: Arrays, image: int, classes: int) -> list[Array]:
    """Of one image, strides 32, 16, 8: (3, 6 + classes, rows, columns): x, y, log w, log h, scale, score, classes."""
    height, width = inputs["images"].shape[2:]
    labels, valid, scores = (inputs[name][image] for name in ("labels", "valid", "scores"))
    boxes = shares(inputs["boxes"][image], width, height)
    made = [np.zeros((3, 6 + classes, height // s, width // s)) for s in STRIDES]
    for (cx, cy, w, h), label, ok, score in zip(boxes, labels, valid, scores, strict=True):
        if not ok or w <= 0 or h <= 0 or score <= 0:
            continue
        cx, cy, w, h = (float(v) for v in (cx, cy, w, h))
        overlap = []
        for aw, ah in ANCHORS:
            inter = min(w, aw / width) * min(h, ah / height)
            overlap.append(inter / (w * h + aw / width * ah / height - inter))
        best = overlap.index(max(overlap))
        target = made[2 - best // 3]
        rows, columns = target.shape[2:]
        i, j = int(cx * columns), int(cy * rows)
        cell = target[best % 3, :, j, i]
        cell[:4] = cx * columns - i, cy * rows - j, np.log(w * width / ANCHORS[best][0]), np.log(
            h * height / ANCHORS[best][1])  # fmt: skip
        cell[4], cell[5] = 2 - w * h, score
        cell[6 + label] = 1
    return made


def iou(a: Any, b: Any) -> Any:
    """Overlap of corner boxes, broadcasting."""
    side = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    area_a, area_b = ((x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1]) for x in (a, b))
    inter = side[..., 0] * side[..., 1]
    return inter / (area_a + area_b - inter + 1e-9)


def corners(xywh: Any) -> Any:
    return torch.cat([xywh[..., :2] - xywh[..., 2:] / 2, xywh[..., :2] + xywh[..., 2:] / 2], -1)


PPYOLO = {"scale": 1.05, "iou_weight": 2.5, "iou_aware": True, "label_smooth": False, "ignore_threshold": 0.7}


def losses(inputs: Arrays, classes: int, *, fault: Fault = "", **fields: Any) -> tuple[dict[str, float], Arrays]:
    """The terms and their sum, and the sum's gradients of the heads by name. `fields` change PPYOLO, `fault` plants an
    error."""
    settings = {**PPYOLO, **fields, "fault": fault}
    if fault == "no_scores":
        inputs = {**inputs, "scores": (inputs["scores"] > 0).astype(np.float32)}
    heads = [torch.tensor(inputs[name], dtype=torch.float64, requires_grad=True) for name in HEADS]
    height, width = inputs["images"].shape[2:]
    sums: dict[str, Any] = {}
    for image in range(len(heads[0])):
        made = targets(inputs, image, classes)
        given = inputs["boxes"][image][inputs["valid"][image]]
        everyone = corners(torch.from_numpy(shares(given, width, height)).double())
        for level, head in enumerate(heads):
            target = torch.from_numpy(made[level]).permute(0, 2, 3, 1)
            parts = _terms(head[image], target, everyone, level, torch.tensor([width, height]), **settings)
            sums = {name: sums.get(name, 0.0) + part.sum() / len(head) for name, part in parts.items()}
    total = torch.stack(list(sums.values())).sum()
    total.backward()
    gradients = {name: head.grad.numpy() for name, head in zip(HEADS, heads, strict=True)}
    return {name: float(value.detach()) for name, value in {"loss": total, **sums}.items()}, gradients


def _terms(
    head: Any,
    target: Any,
    everyone: Any,
    level: int,
    side: Any,
    scale: float,
    iou_weight: float,
    iou_aware: bool,
    label_smooth: bool,
    ignore_threshold: float,
    fault: Fault,
) -> dict[str, Any]:
    """The terms of one level of one image, by cell. target (3, rows, columns, 6 + classes), everyone: all its boxes."""
    _, rows, columns, numbers = target.shape
    expected, raw = (head[:3], head[3:]) if iou_aware else (None, head)
    raw = raw.reshape(3, numbers - 1, rows, columns).permute(0, 2, 3, 1)
    anchors = torch.tensor(ANCHORS[6 - 3 * level : 9 - 3 * level], dtype=torch.float64)[:, None, None]
    line, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")

    def boxes(xy: Any, wh: Any) -> Any:
        centre = (xy + torch.stack([column, line], -1)) / torch.tensor([columns, rows])
        return corners(torch.cat([centre, wh.exp() * anchors / side], -1))

    score = target[..., 5]
    weight = score if fault == "no_size_weight" else score * target[..., 4]
    centre = scale * torch.sigmoid(raw[..., :2]) - 0.5 * (scale - 1)
    if scale == 1:
        xy = torch.nn.functional.binary_cross_entropy(centre, target[..., :2], reduction="none")
    else:
        xy = (centre - target[..., :2]).abs()
    wh = (raw[..., 2:4] - target[..., 2:4]).abs()
    predicted, truth = boxes(centre, raw[..., 2:4]), boxes(target[..., :2], target[..., 2:4])
    overlap = iou(predicted, truth)
    squared = overlap * (overlap.detach() if fault == "iou_once" else overlap)
    found = {"xy": xy.sum(-1) * weight, "wh": wh.sum(-1) * weight, "iou": iou_weight * (1 - squared) * weight}
    if iou_aware:
        goal = overlap if fault == "iou_attached" else overlap.detach()
        found["iou_aware"] = bce(expected, goal, reduction="none") * score
    hit = (score > 0).double()
    others = truth[hit > 0] if fault == "ignore_level" else everyone
    best = iou(predicted[..., None, :], others).amax(-1) if len(others) else torch.zeros_like(hit)
    spared = best < ignore_threshold if fault == "ignore_below" else best > ignore_threshold
    cost = bce(raw[..., 4], hit, reduction="none")
    found["obj"] = cost * score + cost * (1 - hit) * ~spared
    bits = target[..., 6:]
    if label_smooth:
        small = min(1 / bits.shape[-1], 1 / 40)
        bits = torch.where(bits > 0, 1 - small, small)
    found["cls"] = bce(raw[..., 5:], bits, reduction="none") * score[..., None]
    return found
