"""PaddleDetection's YOLOv3 loss with boxes of mixed images: its own recorded numbers, and a dense second formulation.

PP-YOLO's loss there is YOLOv3's with more terms, so fixture G2, without its IoU logits, fixes wh, obj and cls.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from portdet.models import load_model
from portdet.session import Arrays
from tests.backends.ppyolo_spec import G2_LOSSES, HEADS, g2
from tests.losses import ppyolo_truth as truth
from tests.losses.test_ppyolo_loss import crowd

TERMS = ("xy", "wh", "obj", "cls")


def losses(inputs: Arrays, classes: int, **fields: Any) -> dict[str, float]:
    """The profile's, from raw heads without a network."""
    section = {"name": "yolov3", "profile": "ppdet", "classes": classes, "width": 0.0625, "depths": (1,) * 5, **fields}
    spec: Any = load_model(section, imgsz=64, max_boxes=2).spec
    spec.heads = lambda images: tuple(inputs[name][:, -3 * (5 + classes) :].astype(np.float64) for name in HEADS)
    asked = [inputs[name] for name in ("images", "boxes", "labels", "valid", "scores")]
    found = spec.loss(*asked) if spec.settings.mixed else spec.loss(*asked[:4])
    return {name: float(found[name]) for name in TERMS}


def far(got: dict[str, float], want: dict[str, float], bound: float) -> set[str]:
    return {name for name in got if name in want and not abs(got[name] - want[name]) <= bound * abs(want[name])}


def test_recorded_losses() -> None:
    """xy has another form there, as PP-YOLO moves centres beyond their cell."""
    assert far(losses(g2(), 4), G2_LOSSES, 1e-5) == {"xy"}


@pytest.mark.parametrize(
    ("fields", "terms"),
    [({"mixed": False}, {"wh", "obj", "cls"}), ({"size_loss": "squared"}, {"wh"}),
     ({"ignore_boxes": "level", "ignore_threshold": 0.5}, {"obj"}), ({"label_smooth": "ppdet"}, {"cls"})],
)  # fmt: skip
def test_recorded_losses_tell_the_fields_apart(fields: dict[str, Any], terms: set[str]) -> None:
    assert far(losses(g2(), 4, **fields), G2_LOSSES, 1e-5) - {"xy"} == terms


@pytest.mark.parametrize("seed", [0, 1])
def test_the_dense_formulation(seed: int) -> None:
    """All terms, boxes that share a place, and one whose score is 0, which asks for nothing."""
    inputs = crowd(seed, 96, 96, 5, 3 * (5 + 5))
    want, _ = truth.losses(inputs, 5, scale=1.0, iou_aware=False)
    assert far(losses(inputs, 5), want, 1e-6) == set()
    assert far(losses(inputs, 5, mixed=False), want, 1e-3) == set(TERMS)


def test_without_a_mixture_all_boxes_weigh_one() -> None:
    inputs = crowd(2, 96, 96, 5, 3 * (5 + 5))
    inputs["scores"] = inputs["valid"].astype(np.float32)
    assert far(losses(inputs, 5), losses(inputs, 5, mixed=False), 1e-12) == set()
