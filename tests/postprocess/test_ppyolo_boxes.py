"""PP-YOLO's boxes on the host: clipping, truncated sizes and multi-class NMS against Paddle's own results."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.errors import PortdetError
from portdet.postprocess.detections import Detections
from portdet.postprocess.matrix_nms import MatrixNms, matrix_nms
from portdet.postprocess.multiclass import multiclass_nms
from portdet.postprocess.ppyolo import detections, truncated

Array = np.ndarray[Any, Any]


def everything(boxes: Array, scores: Array) -> Detections:
    """Suppresses nothing."""
    return Detections(boxes, scores.max(axis=1), scores.argmax(axis=1))


@pytest.mark.parametrize("clip", [True, False])
def test_clip_of_yolo_box(oracles: Path, clip: bool) -> None:
    """Shares of Paddle's unclipped boxes become its clipped ones, for images of 230x150 and 200x90."""
    with np.load(oracles / "nms" / "ppdet_ops.npz") as found:
        plain, want = found["yolo_box.1.0.boxes"], found[f"yolo_box.1.{int(clip)}.boxes"]
        sizes = found["yolo_box.im"][:, ::-1]
    shares = plain / np.tile(sizes, 2)[:, None]
    predictions = np.concatenate([shares, np.ones((*plain.shape[:2], 2))], axis=2).astype(np.float32)
    got = np.stack([one.boxes for one in detections(predictions, sizes, everything, clip=clip)])
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-5)
    other = np.stack([one.boxes for one in detections(predictions, sizes, everything, clip=not clip)])
    assert np.abs(other - want).max() > 1


def test_last_pixel_and_edge() -> None:
    """A box beyond the image ends at its last pixel in Paddle, at its edge in miemiedetection."""
    beyond = np.array([[[-1.0, 0.5, 2.0, 2.0, 1.0]]], np.float32)
    for last, want in ((1.0, [0, 25, 99, 49]), (0.0, [0, 25, 100, 50])):
        found = detections(beyond, np.array([[100, 50]]), everything, last=last)
        assert found[0].boxes.tolist() == [want]


def test_truncated_sizes() -> None:
    """118 pixels become 117 at 608; of the heights 100..1399 PaddleDetection loses 60 to 107 to a pixel."""
    assert truncated(np.array([[640, 118]]), 608).tolist() == [[640, 117]]
    heights = np.arange(100, 1400)
    for side in (320, 416, 512, 608, 640):
        found = truncated(heights[:, None], side)[:, 0]
        lost = heights - found
        assert set(lost.tolist()) == {0, 1}
        assert 60 <= lost.sum() <= 107
        in_float64 = (side / (side / heights)).astype(np.int64)
        assert (in_float64 != found).any()


def test_multiclass_nms_of_paddle(oracles: Path) -> None:
    with np.load(oracles / "nms" / "ppdet_ops.npz") as found:
        boxes, scores, want = found["boxes"][0], found["scores"][0].T, found["multiclass"]
    want = want[np.argsort(-want[:, 1], kind="stable")]
    options: dict[str, Any] = {"score_threshold": 0.005, "threshold": 0.45}
    got = multiclass_nms(boxes, scores, **options)
    np.testing.assert_array_equal(got.scores, want[:, 1])
    np.testing.assert_array_equal(got.labels, want[:, 0])
    np.testing.assert_array_equal(got.boxes, want[:, 2:])
    for fault in ({"threshold": 0.5}, {"pixel_offset": 1.0}, {"top_k": 20}, {"keep": 99}):
        other = multiclass_nms(boxes, scores, **{**options, **fault})
        assert not np.array_equal(other.scores, want[:, 1]), fault


def test_multiclass_nms_of_nothing() -> None:
    found = multiclass_nms(np.zeros((3, 4)), np.zeros((3, 2)), score_threshold=0.0, threshold=0.5)
    assert (len(found), found.boxes.shape) == (0, (0, 4))


def test_oracle_of_ppdet(oracles: Path) -> None:
    """PP-YOLO r50vd-DCN of PaddleDetection: its boxes and scores before NMS give its 100 detections an image."""
    with np.load(oracles / "ppdet_ppyolo_r50vd_dcn" / "eval.npz") as found:
        boxes, scores = found["decode.boxes"], found["decode.scores"].transpose(0, 2, 1)
        want = found["out.bbox"].reshape(2, 100, 6)
    predictions = np.concatenate([boxes / 128, scores], axis=2)
    got = detections(predictions, np.full((2, 2), 128), partial(matrix_nms, options=MatrixNms()))
    for one, rows in zip(got, want, strict=True):
        np.testing.assert_allclose(one.scores, rows[:, 1], atol=1e-7)
        np.testing.assert_array_equal(one.labels, rows[:, 0])
        np.testing.assert_array_equal(one.boxes, rows[:, 2:])


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(PortdetError, match=r"got \(2, 9, 4\) and \(2, 2\)"):
        detections(np.zeros((2, 9, 4), np.float32), np.ones((2, 2)), everything)
    with pytest.raises(PortdetError, match=r"\(1, 2\)"):
        detections(np.zeros((2, 9, 6), np.float32), np.ones((1, 2)), everything)
