"""PaddleDetection's YOLOv3 as a profile: its boxes, by the shipped configuration, against Paddle's own operators."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.config import Config, load, sections
from portdet.errors import PortdetError
from portdet.losses.yolov3 import level_predictions
from portdet.models.registry import check
from portdet.models.yolov3 import ANCHORS, detections
from portdet.postprocess.detections import Detections
from portdet.processes.child import run_child
from tests.backends.harness import require
from tests.models.ppdet_boxes import CLASSES, SIDE, SIZES, heads
from tests.patience import GUARD

Array = np.ndarray[Any, Any]
SHIPPED = "yolov3_ppdet_coco"


def same(got: Detections, want: Array, bound: float = 1e-4) -> bool:
    """Boxes (n, 6) of Paddle: label, score, corners in pixels. In order of score, where labels may be exchanged."""
    want = want[np.lexsort((want[:, 0], -want[:, 1]))]
    if len(got) != len(want):
        return False
    order = np.lexsort((got.labels, -got.scores))
    near = np.abs(got.scores[order] - want[:, 1]).max() < 1e-6 and np.abs(got.boxes[order] - want[:, 2:]).max() < bound
    return bool(near and (got.labels[order] == want[:, 0]).all())


def predicted() -> Array:
    """Our decoding of the heads, on the reference: strides 8, 16, 32."""
    images = np.zeros((2, 3, SIDE, SIDE), np.float32)
    big, medium, small = heads()
    parts = [
        level_predictions(head, images, ANCHORS[first : first + 3], CLASSES)
        for head, first in ((small, 0), (medium, 3), (big, 6))
    ]
    joined: Array = np.concatenate(parts, axis=1).astype(np.float32)
    return joined


@pytest.fixture(scope="module")
def paddles(tmp_path_factory: pytest.TempPathFactory) -> list[Array]:
    require("paddle")
    to = tmp_path_factory.mktemp("boxes") / "boxes.npz"
    run_child("tests.models.ppdet_boxes", {"to": str(to)}, timeout=GUARD, env={"OMP_NUM_THREADS": "1"})
    with np.load(to) as found:
        return [found["first"], found["second"]]


def test_boxes_are_paddles(paddles: list[Array]) -> None:
    """From raw heads: decoding, the image's size, clipping, scores of all classes, suppression, the best of all."""
    assert [len(rows) for rows in paddles] == [100, 100], "keep_top_k decides too"
    got = detections(predicted(), SIZES, load(SHIPPED, [f"imgsz={SIDE}"]))
    assert all(same(one, rows) for one, rows in zip(got, paddles, strict=True))


@pytest.mark.parametrize(
    "words",
    [["nms=0.5"], ["top_k=20"], ["max_det=99"], ["pixel_offset=1"], ["objectness=0.9"], ["conf=0.7"],
     ["nms_kind=greedy"], ["nms_kind=diou"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_every_key_is_seen(words: list[str], paddles: list[Array]) -> None:
    got = detections(predicted(), SIZES, load(SHIPPED, [f"imgsz={SIDE}", *words]))
    assert not all(same(one, rows) for one, rows in zip(got, paddles, strict=True))


def test_recorded_suppression(oracles: Path) -> None:
    """PaddleDetection's `MultiClassNMS` on 120 boxes of 5 classes, score_threshold .005."""
    with np.load(oracles / "nms" / "ppdet_ops.npz") as found:
        boxes, scores, want = found["boxes"][0], found["scores"][0].T, found["multiclass"]
    shift, size = 64.0, 1024.0  # inside of the image, so that nothing is clipped; overlaps stay
    low, high = (boxes[:, :2] + shift) / size, (boxes[:, 2:] + shift) / size
    want[:, 2:] += shift
    rows = np.concatenate([(low + high) / 2, high - low, np.ones((len(boxes), 1)), scores], axis=1, dtype=np.float32)
    words = ["imgsz=512", "conf=0.005", "objectness=0"]
    one = detections(rows[None], np.full((1, 2), 1024), load(SHIPPED, words))[0]
    assert same(one, want)
    other = detections(rows[None], np.full((1, 2), 1024), load(SHIPPED, [*words, "pixel_offset=1"]))[0]
    assert not same(other, want)


@pytest.mark.parametrize(
    ("model", "kind", "good"),
    [("yolov3", "greedy", True), ("yolov3", "diou", True), ("yolov3", "multiclass", True), ("yolov3", "matrix", False),
     ("ppyolo", "matrix", True), ("ppyolo", "multiclass", True), ("ppyolo", "greedy", False),
     ("ppyolo", "diou", False)],
)  # fmt: skip
def test_a_suppression_of_another_model_is_refused_before_the_training(model: str, kind: str, good: bool) -> None:
    config = Config.model_validate({"model": {"name": model}, "eval": {"nms_kind": kind}})
    if good:
        check(config)
        return
    with pytest.raises(PortdetError, match=f"eval.nms_kind = '{kind}' is not"):
        check(config)


def test_the_page_names_keys_that_are_there() -> None:
    """Values beside PaddleDetection's keys are those of the shipped configuration."""
    page = (Path(__file__).parents[2] / "docs" / "from-paddledetection-yolov3.md").read_text(encoding="utf-8")
    config = load(SHIPPED)
    values = {"eval.objectness": "0.005", "eval.conf": "0.01", "eval.top_k": "1000", "eval.nms": "0.45",
              "eval.max_det": "100", "augment.mixup_epochs": "250"}  # fmt: skip
    for key, value in values.items():
        section, _, name = key.partition(".")
        (line,) = [line for line in page.splitlines() if f"| `{key}` |" in line]
        assert line.split("`")[1].endswith(f": {value}")
        assert getattr(getattr(config, section), name) == float(value)
    named = set(re.findall(r"`((?:eval|optim|augment)\.\w+)", page))
    known = {f"{section}.{key}" for section, cls in sections().items() for key in cls.model_fields}
    assert named <= known
