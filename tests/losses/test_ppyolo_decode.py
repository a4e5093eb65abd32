"""PP-YOLO's decoding against Paddle's `yolo_box` and the heads, boxes and scores of PaddleDetection's PP-YOLO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.losses.ppyolo import aware, level_predictions, level_rows
from portdet.models.yolov3 import ANCHORS
from portdet.postprocess.detections import Detections
from portdet.postprocess.ppyolo import detections
from portdet.session import Array
from tests import bundles

ORACLE_ANCHORS = ((10, 14), (37, 58), (81, 82))  # of yolo_box in bundle `nms`, at stride 32 with conf 0.3
FAULTS: list[dict[str, Any]] = [{"scale": 1.1}, {"conf": 0.2}, {"anchors": ORACLE_ANCHORS[::-1]}]


def everything(boxes: Array, scores: Array) -> Detections:
    """Suppresses nothing; `scores` is of all classes."""
    return Detections(boxes, scores, np.zeros(len(boxes), np.int64))


def of_oracle(found: Any, *, clip: bool, **given: Any) -> tuple[Array, Array]:
    """Boxes (2, 105, 4) and scores (2, 105, 4) from the oracle's raw head."""
    head = found["yolo_box.x"].astype(np.float64)
    images = np.zeros((2, 3, 5 * 32, 7 * 32))
    settings = {"anchors": ORACLE_ANCHORS, "conf": 0.3, **given}
    predictions = level_predictions(head, images, classes=4, iou_aware=False, iou_factor=0.0, **settings)
    sizes = found["yolo_box.im"][:, ::-1]
    per_image = detections(predictions.astype(np.float32), sizes, everything, clip=clip)
    return np.stack([one.boxes for one in per_image]), np.stack([one.scores for one in per_image])


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("scale", [1.0, 1.05])
def test_yolo_box(oracles: Path, scale: float, clip: bool) -> None:
    with np.load(oracles / "nms" / "ppdet_ops.npz") as found:
        boxes, scores = of_oracle(found, scale=scale, clip=clip)
        want = found[f"yolo_box.{scale:g}.{int(clip)}.boxes"]
        assert 0.2 < (want == 0).all(axis=2).mean() < 0.4
        np.testing.assert_allclose(boxes, want, rtol=2e-6, atol=1e-4)
        np.testing.assert_allclose(scores, found[f"yolo_box.{scale:g}.{int(clip)}.scores"], rtol=2e-6)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(next(iter(fault))))
def test_other_settings_are_seen(oracles: Path, fault: dict[str, Any]) -> None:
    with np.load(oracles / "nms" / "ppdet_ops.npz") as found:
        boxes, _ = of_oracle(found, clip=True, **{"scale": 1.05, **fault})
        assert np.abs(boxes - found["yolo_box.1.05.1.boxes"]).max() > 0.1


def test_anchors_come_one_after_the_other(oracles: Path) -> None:
    """Cell by cell, as YOLOv3's levels are laid out, the same boxes stand elsewhere."""
    with np.load(oracles / "nms" / "ppdet_ops.npz") as found:
        boxes, _ = of_oracle(found, scale=1.0, clip=False)
        want = found["yolo_box.1.0.boxes"]
    by_cell = boxes.reshape(2, 3, 35, 4).swapaxes(1, 2).reshape(2, 105, 4)
    assert np.abs(by_cell - want).max() > 10


def test_aware_logit() -> None:
    """sigmoid(objectness)^0.6 sigmoid(expected)^0.4, and PaddleDetection's clips at 1e-7."""
    objectness, expected = np.array([0.3, -2.0, -60.0, 60.0]), np.array([1.2, 0.5, -60.0, 60.0])

    def sigmoid(x: Array) -> Array:
        return np.asarray(1 / (1 + np.exp(-x)))

    got = aware(objectness, expected, 0.4)
    np.testing.assert_allclose(
        sigmoid(got[:2]), (sigmoid(objectness) ** 0.6 * sigmoid(expected) ** 0.4)[:2], rtol=1e-12
    )
    np.testing.assert_allclose(got[2:], [-np.log(1e7 - 1), np.log(1e7)], rtol=1e-7)
    with np.errstate(all="raise"):
        assert np.isfinite(aware(np.array([-700.0, 700.0]), np.array([700.0, -700.0]), 0.5)).all()


def raw_heads(folder: Path) -> list[Array]:
    """Raw heads of strides 32, 16, 8 in float64: the oracle holds the necks, and its 1x1 heads' weights as formulas."""
    drawn, heads = bundles.weights(folder, "yolo_head.yolo_output."), []
    with np.load(folder / "eval.npz") as found:
        for level in range(3):
            head = f"yolo_head.yolo_output.{level}"
            weight, bias = (drawn[f"{head}.{leaf}"].astype(np.float64) for leaf in ("weight", "bias"))
            raw = np.einsum("oc,bchw->bohw", weight[:, :, 0, 0], found[f"neck.{level}"].astype(np.float64))
            heads.append(raw + bias[:, None, None])
    return heads


def test_oracle_of_ppdet(oracles: Path) -> None:
    """From raw heads to logits with IoU, then to boxes and scores before NMS: 80 classes at 128 px."""
    folder = oracles / "ppdet_ppyolo_r50vd_dcn"
    heads, images = raw_heads(folder), np.zeros((2, 3, 128, 128))
    with np.load(folder / "eval.npz") as found:
        for level, head in enumerate(heads):
            rows = level_rows(head, 80, True)
            want = found[f"yolo_head.{level}"].reshape(2, 3, 85, *head.shape[2:]).transpose(0, 3, 4, 1, 2)
            logits = aware(rows[..., 4], rows[..., 85], 0.4)
            np.testing.assert_allclose(rows[..., :4], want[..., :4], atol=2e-6)
            np.testing.assert_allclose(logits, want[..., 4], atol=2e-6)
            assert np.abs(aware(rows[..., 4], rows[..., 85], 0.5) - want[..., 4]).max() > 1e-3
        boxes, scores = found["decode.boxes"], found["decode.scores"].transpose(0, 2, 1)
    parts = [
        level_predictions(head, images, ANCHORS[first : first + 3], 80, 1.05, True, 0.4, 0.01)
        for head, first in zip(heads, (6, 3, 0), strict=True)
    ]
    predictions = np.concatenate(parts, axis=1).astype(np.float32)
    got = detections(predictions, np.full((2, 2), 128), everything)
    np.testing.assert_allclose(np.stack([one.boxes for one in got]), boxes, atol=1e-4)
    np.testing.assert_allclose(np.stack([one.scores for one in got]), scores, atol=1e-6)
