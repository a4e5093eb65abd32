"""COCO's detection metric: the twelve numbers, a table per class, and precision-recall curves.

pycocotools is the reference. `evaluator="hotcoco"` is the same computation in Rust, over 100 times faster; a test
holds that both give the same bits for boxes. A number that cannot be computed (no ground truth of that class or
size) is -1, as in pycocotools: `text` shows it as n/a and no mean includes it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from portdet.errors import PortdetError, nearest
from portdet.session import Array

Evaluator = Literal["pycocotools", "hotcoco"]
Annotation = dict[str, Any]

# Name -> (kind, IoU or None for the mean of .50:.95, area, which of the three limits of detections), COCO's order.
_NUMBERS: dict[str, tuple[str, float | None, str, int]] = {
    "AP": ("precision", None, "all", 2),
    "AP50": ("precision", 0.5, "all", 2),
    "AP75": ("precision", 0.75, "all", 2),
    "APs": ("precision", None, "small", 2),
    "APm": ("precision", None, "medium", 2),
    "APl": ("precision", None, "large", 2),
    "AR1": ("recall", None, "all", 0),
    "AR10": ("recall", None, "all", 1),
    "AR100": ("recall", None, "all", 2),
    "ARs": ("recall", None, "small", 2),
    "ARm": ("recall", None, "medium", 2),
    "ARl": ("recall", None, "large", 2),
}
NAMES = tuple(_NUMBERS)
IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
_AREAS = ("all", "small", "medium", "large")


@dataclass(frozen=True)
class ClassScore:
    """One class: its ground-truth boxes (crowds left out), AP at IoU .50:.95 and at .50; -1 without ground truth."""

    name: str
    boxes: int
    ap: float
    ap50: float


@dataclass(frozen=True)
class CocoScores:
    """`numbers`: COCO's twelve by name, -1 where undefined. `classes`: in the order of the categories.

    `precision` (C, 101): at IoU .50, for recall 0, .01 .. 1, largest area and most detections; rows of -1 for classes
    without ground truth. `scores` (C, 101): the score of the detection at which that recall is reached.
    """

    numbers: dict[str, float]
    classes: tuple[ClassScore, ...]
    precision: Array
    scores: Array

    def plain(self) -> dict[str, Any]:
        """For JSON: the numbers by name, and `classes`; null where a number is undefined."""
        classes = [{"name": c.name, "boxes": c.boxes, "AP": _plain(c.ap), "AP50": _plain(c.ap50)} for c in self.classes]
        return {**{name: _plain(value) for name, value in self.numbers.items()}, "classes": classes}


def defined(value: float | None) -> bool:
    """Whether a metric is one: COCO's -1, NaN and None say that there was no ground truth for it."""
    return value is not None and value >= 0


def _plain(value: float) -> float | None:
    return value if defined(value) else None


def text(value: float) -> str:
    """A metric as people read it: three digits, or n/a where it is undefined."""
    return f"{value:.3f}" if defined(value) else "n/a"


def evaluate(
    ground_truth: Mapping[str, Any],
    results: Sequence[Annotation],
    *,
    max_det: int = 100,
    evaluator: Evaluator = "pycocotools",
) -> CocoScores:
    """Score boxes against a ground truth in COCO's format ('images', 'annotations', 'categories').

    `results`: COCO's result list (image_id, category_id, bbox x y w h, score); may be empty. Ids may be any ints.
    `max_det`: detections per image and class that count (AR100 means that many). Raises PortdetError for a
    result of an image or category that the ground truth lacks, and for an evaluator that is not installed.
    """
    categories = sorted(ground_truth["categories"], key=lambda c: c["id"])
    images = {image_id: rank for rank, image_id in enumerate(sorted(i["id"] for i in ground_truth["images"]), 1)}
    classes = {category["id"]: rank for rank, category in enumerate(categories, 1)}
    truth = _renumber(ground_truth["annotations"], images, classes, "annotation")
    found = _renumber(results, images, classes, "detection")
    if evaluator not in _ENGINES:
        raise PortdetError(f"unknown evaluator '{evaluator}'", fix=nearest(evaluator, _ENGINES))
    limits = [min(1, max_det), min(10, max_det), max_det]
    arrays = _ENGINES[evaluator](len(images), len(classes), truth, found, limits)
    named = {c["id"]: index for index, c in enumerate(categories)}
    order = [named[c["id"]] for c in ground_truth["categories"]]
    counts = np.bincount([t["category_id"] - 1 for t in truth if not t["iscrowd"]], minlength=len(classes))
    return CocoScores(
        {name: _number(arrays, *spec) for name, spec in _NUMBERS.items()},
        tuple(
            ClassScore(
                str(categories[k]["name"]),
                int(counts[k]),
                _mean(arrays["precision"][:, :, k, 0, 2]),
                _mean(arrays["precision"][0, :, k, 0, 2]),
            )
            for k in order
        ),
        arrays["precision"][0, :, order, 0, 2],
        arrays["scores"][0, :, order, 0, 2],
    )


def _renumber(
    rows: Sequence[Annotation], images: dict[int, int], classes: dict[int, int], what: str
) -> list[Annotation]:
    """Rows with ids from 1 and nothing but what the metric reads.

    pycocotools takes a matched annotation with id 0 for unmatched, and other programs want ids above 0. Ranks keep
    the order of images, which decides between equal scores.
    """
    out = []
    for number, row in enumerate(rows, 1):
        if row["image_id"] not in images or row["category_id"] not in classes:
            key = "category_id" if row["image_id"] in images else "image_id"
            raise PortdetError(
                f"{what} {number} has {key} {row[key]}, which the ground truth lacks",
                fix="evaluate on the annotation file that the images were taken from",
            )
        x, y, w, h = (float(v) for v in row["bbox"])
        made: Annotation = {
            "id": number,
            "image_id": images[row["image_id"]],
            "category_id": classes[row["category_id"]],
            "bbox": [x, y, w, h],
            "area": float(row.get("area", w * h)) if what == "annotation" else w * h,
            "iscrowd": int(row.get("iscrowd", 0)),
        }
        if what == "detection":
            made["score"] = float(row["score"])
        out.append(made)
    return out


def _dataset(images: int, classes: int, annotations: list[Annotation]) -> dict[str, Any]:
    return {
        "info": {},
        "images": [{"id": i} for i in range(1, images + 1)],
        "categories": [{"id": k, "name": str(k)} for k in range(1, classes + 1)],
        "annotations": annotations,
    }


def _pycocotools(images: int, classes: int, truth: list[Annotation], found: list[Annotation], limits: list[int]) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for rows in (truth, found):
            coco = COCO()
            coco.dataset = _dataset(images, classes, rows)
            coco.createIndex()
            sides.append(coco)
        run = COCOeval(*sides, iouType="bbox")
        run.params.maxDets = limits
        run.evaluate()
        run.accumulate()
    return run.eval


def _hotcoco(images: int, classes: int, truth: list[Annotation], found: list[Annotation], limits: list[int]) -> Any:
    try:
        import hotcoco
    except ImportError:
        raise PortdetError(
            "hotcoco is not installed", fix="pip install hotcoco, or evaluate with pycocotools"
        ) from None
    shape = {"width": 1, "height": 1}  # hotcoco wants them; the metric does not read them
    data = _dataset(images, classes, truth)
    data["images"] = [image | shape for image in data["images"]]
    side = hotcoco.COCO(data)
    run = hotcoco.COCOeval(side, side.loadRes(found), "bbox")
    run.params.maxDets = limits
    run.evaluate()
    run.accumulate()
    return run.eval


_ENGINES = {"pycocotools": _pycocotools, "hotcoco": _hotcoco}


def _number(arrays: Any, kind: str, iou: float | None, area: str, limit: int) -> float:
    values = arrays[kind][..., _AREAS.index(area), limit]
    return _mean(values if iou is None else values[np.isclose(IOUS, iou)])


def _mean(values: Array) -> float:
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else -1.0
