"""Which class was taken for which, at one score and overlap: the confusion matrix of a detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from portdet.postprocess.nms import iou
from portdet.session import Array


def confusion(
    ground_truth: Mapping[str, Any], results: Sequence[dict[str, Any]], *, conf: float = 0.25, overlap: float = 0.5
) -> Array:
    """(C+1, C+1) int64 counts: rows are what was found, columns what was there; the last of each is background.

    Detections of at least `conf` and ground-truth boxes (crowds left out) are paired one to one, largest overlap
    first, whatever their classes, if they overlap by `overlap` or more. What stays alone meets the background.
    """
    classes = {category["id"]: index for index, category in enumerate(ground_truth["categories"])}
    matrix = np.zeros((len(classes) + 1, len(classes) + 1), np.int64)
    truth = _by_image(a for a in ground_truth["annotations"] if not a.get("iscrowd", 0))
    found = _by_image(r for r in results if r["score"] >= conf)
    for image_id in truth.keys() | found.keys():
        there, seen = truth.get(image_id, []), found.get(image_id, [])
        pairs = _pairs(iou(_boxes(seen), _boxes(there)), overlap)
        for row, column in pairs:
            matrix[classes[seen[row]["category_id"]], classes[there[column]["category_id"]]] += 1
        for row in set(range(len(seen))) - {r for r, _ in pairs}:
            matrix[classes[seen[row]["category_id"]], -1] += 1
        for column in set(range(len(there))) - {c for _, c in pairs}:
            matrix[-1, classes[there[column]["category_id"]]] += 1
    return matrix


def _by_image(rows: Any) -> dict[int, list[dict[str, Any]]]:
    groups: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["image_id"], []).append(row)
    return groups


def _boxes(rows: list[dict[str, Any]]) -> Array:
    xywh = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def _pairs(overlaps: Array, least: float) -> list[tuple[int, int]]:
    """Greedy one-to-one matching, largest overlap first."""
    pairs: list[tuple[int, int]] = []
    left = np.where(overlaps >= least, overlaps, -1.0)
    while left.size and left.max() >= 0:
        row, column = (int(i) for i in np.unravel_index(left.argmax(), left.shape))
        pairs.append((row, column))
        left[row], left[:, column] = -1.0, -1.0
    return pairs
