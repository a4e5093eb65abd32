"""PP-YOLO's targets and losses on the reference: golden values of PaddleDetection, and a dense second formulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.assign.ppyolo import box_targets
from portdet.assign.yolov3 import assign
from portdet.models.yolov3 import ANCHORS
from portdet.reference import run
from portdet.session import Array, Arrays
from tests.backends.ppyolo_spec import FIRST, G2_LOSSES, HEADS, g2, traced
from tests.losses import ppyolo_truth as truth


def reference(inputs: Arrays, **fields: Any) -> dict[str, float]:
    found, _ = run(traced(inputs, **fields), "loss", True, {}, inputs)
    return {name: float(value) for name, value in found.items() if name != "predictions"}


def dense(inputs: Arrays, classes: int, **fields: Any) -> dict[str, float]:
    return truth.losses(inputs, classes, **fields)[0]


def red(got: dict[str, float], want: dict[str, float], bound: float) -> set[str]:
    """The terms that differ by more than `bound`, relative to what is wanted."""
    assert set(got) == set(want)
    return {name for name in want if not abs(got[name] - want[name]) <= bound * abs(want[name])}


def crowd(seed: int, width: int, height: int, classes: int, outputs: int) -> Arrays:
    """Two images of 24 boxes of all sizes; every third repeats an earlier place; scores of mixed images, one of 0."""
    random = np.random.default_rng(seed)
    size = np.exp(random.uniform(np.log(4), np.log(min(width, height)), (2, 24, 2)))
    centre = random.uniform(0, 1, (2, 24, 2)) * (width, height)
    for i in range(2, 24, 3):
        centre[:, i], size[:, i] = centre[:, i - 2], size[:, i - 2] * random.uniform(0.98, 1.02, (2, 2))
    edges = np.concatenate([centre - size / 2, centre + size / 2], axis=2)
    boxes = np.clip(edges, 0, (width, height, width, height)).astype(np.float32)
    scores = random.uniform(0.1, 1, (2, 24)).astype(np.float32)
    scores[:, 5] = 0
    valid = random.random((2, 24)) < 0.85
    shapes = {name: (2, outputs, height // s, width // s) for name, s in zip(HEADS, (32, 16, 8), strict=True)}
    return {
        **{name: random.normal(0, 1, shape) for name, shape in shapes.items()},
        "images": np.zeros((2, 3, height, width)),
        "boxes": boxes * valid[..., None],
        "labels": random.integers(0, classes, (2, 24)).astype(np.int32),
        "valid": valid,
        "scores": scores * valid,
    }


def spec_targets(inputs: Arrays, classes: int) -> list[Array]:
    """The spec's targets in the layout of PaddleDetection: strides 32, 16, 8, (B, 3, 6 + classes, rows, columns)."""
    place, log_size, best, taken = box_targets(
        inputs["boxes"], inputs["images"], inputs["valid"], inputs["scores"], ANCHORS
    )
    made = []
    for name in HEADS:
        head = inputs[name]
        rows, columns = head.shape[2:]
        row, winner, offset, bits = assign(head, place, best, inputs["labels"], taken, FIRST[name], classes, 0.0)
        y = np.zeros((len(head), rows * columns * 3, 6 + classes))
        for image, box in zip(*np.nonzero(winner), strict=True):
            cell = y[image, row[image, box]]
            assert cell[5] == 0, "two winners in one place"
            cell[:2], cell[2:4] = offset[image, box], log_size[image, box]
            cell[4] = 2 - place[image, box, 2] * place[image, box, 3]
            cell[5], cell[6:] = inputs["scores"][image, box], bits[image, box]
        made.append(y.reshape(len(head), rows, columns, 3, -1).transpose(0, 3, 4, 1, 2))
    return made


def test_golden_losses() -> None:
    assert red(reference(g2(), classes=4), G2_LOSSES, 1e-5) == set()


@pytest.mark.parametrize(
    ("fields", "terms"),
    [
        ({"scale": 1.0}, {"xy", "iou", "iou_aware"}),
        ({"iou_weight": 2.0}, {"iou"}),
        ({"label_smooth": True}, {"cls"}),
        ({"ignore_threshold": 0.5}, {"obj"}),
    ],
    ids=lambda value: min(value),  # one of a set's words, the same in every process
)
def test_golden_losses_tell_the_settings_apart(fields: dict[str, Any], terms: set[str]) -> None:
    assert red(reference(g2(), classes=4, **fields), G2_LOSSES, 1e-5) - {"loss"} == terms


@pytest.mark.parametrize(
    ("fault", "terms"),
    [
        ("no_scores", {"xy", "wh", "iou", "iou_aware", "obj", "cls"}),
        ("no_size_weight", {"xy", "wh", "iou"}),
        ("ignore_below", {"obj"}),
    ],
)
def test_golden_losses_of_the_second_formulation(fault: truth.Fault, terms: set[str]) -> None:
    assert red(dense(g2(), 4), G2_LOSSES, 1e-5) == set()
    assert red(dense(g2(), 4, fault=fault), G2_LOSSES, 1e-5) >= terms


def test_golden_positives() -> None:
    """Where PaddleDetection puts the four boxes of G2: level, image, anchor, row, column."""
    made = spec_targets(g2(), 4)
    found = {(lv, *map(int, at)) for lv in range(3) for at in np.argwhere(made[lv][:, :, 5])}
    assert found == {(1, 0, 0, 2, 1), (2, 0, 0, 3, 8), (0, 1, 0, 1, 1), (2, 1, 0, 10, 1)}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("width", "height"), [(416, 416), (128, 96), (608, 608)])
def test_targets_equal_the_loop(width: int, height: int, seed: int) -> None:
    inputs = crowd(seed, width, height, 4, 30)
    made, collisions, mixed = spec_targets(inputs, 4), 0, 0
    for image in range(2):
        loop = truth.targets(inputs, image, 4)
        for level in range(3):
            np.testing.assert_allclose(made[level][image], loop[level], rtol=1e-6, atol=4e-6)
            np.testing.assert_array_equal(made[level][image] != 0, loop[level] != 0)
            mixed += int((loop[level][:, 6:].sum(axis=1) > 1).sum())
        boxes = int((inputs["valid"][image] & (inputs["scores"][image] > 0)).sum())
        collisions += boxes - sum(int((target[:, 5] > 0).sum()) for target in loop)
    assert collisions > 3
    assert mixed > 1


@pytest.mark.parametrize("side", [320, 416, 608])
def test_centres_on_the_borders_of_cells(side: int) -> None:
    """Boxes of whole pixels around every border of a cell: PaddleDetection's order of roundings decides which one."""
    random = np.random.default_rng(side)
    centre = 8 * random.integers(1, side // 8, (2, 200, 2))
    half = np.minimum(random.integers(2, 60, (2, 200, 2)), np.minimum(centre, side - centre))
    inputs: Arrays = {
        **{name: np.zeros((2, 1, side // s, side // s)) for name, s in zip(HEADS, (32, 16, 8), strict=True)},
        "images": np.zeros((2, 3, side, side)),
        "boxes": np.concatenate([centre - half, centre + half], axis=2).astype(np.float32),
        "labels": np.zeros((2, 200), np.int32),
        "valid": np.ones((2, 200), bool),
        "scores": np.ones((2, 200)),
    }
    made = spec_targets(inputs, 1)
    moved = 0
    for image in range(2):
        loop = truth.targets(inputs, image, 1)
        for level in range(3):
            np.testing.assert_array_equal(made[level][image, :, 5], loop[level][:, 5])
        share = truth.shares(inputs["boxes"][image], side, side)[:, :2].astype(np.float64) * (side // 8)
        exact = centre[image] / 8
        moved += int((np.floor(share) != exact).sum())
    assert moved > 10, "with exact shares no centre falls below its border"


def test_targets_of_ppdet(oracles: Path) -> None:
    """What PaddleDetection's own Gt2YoloTarget made of the oracle's boxes, 80 classes at 128 px."""
    with np.load(oracles / "ppdet_ppyolo_r50vd_dcn" / "inputs.npz") as found:
        given = [(found[f"raw_box.{i}"], found[f"raw_class.{i}"]) for i in range(2)]
        shares, want = found["gt_bbox"], [found[f"target{level}"] for level in range(3)]
    inputs: Arrays = {
        **{name: np.zeros((2, 1, 128 // s, 128 // s)) for name, s in zip(HEADS, (32, 16, 8), strict=True)},
        "images": np.zeros((2, 3, 128, 128)),
        "boxes": np.zeros((2, 50, 4)),
        "labels": np.zeros((2, 50), np.int32),
        "valid": np.zeros((2, 50), bool),
        "scores": np.ones((2, 50)),
    }
    for i, (boxes, labels) in enumerate(given):
        inputs["boxes"][i, : len(boxes)], inputs["labels"][i, : len(boxes)] = boxes, labels
        inputs["valid"][i, : len(boxes)] = True
    place, *_ = box_targets(inputs["boxes"], inputs["images"], inputs["valid"], inputs["scores"], ANCHORS)
    np.testing.assert_array_equal(place, shares)
    for level, target in enumerate(spec_targets(inputs, 80)):
        np.testing.assert_allclose(target, want[level], rtol=3e-7, atol=1e-7)


SETTINGS: dict[str, dict[str, Any]] = {
    "ppyolo": {},
    "plain scale": {"scale": 1.0},
    "not aware": {"iou_aware": False},
    "smoothed": {"label_smooth": True},
    "other numbers": {"scale": 1.2, "iou_weight": 1.5, "ignore_threshold": 0.4},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(("width", "height"), [(128, 128), (160, 96)])
def test_losses_equal_the_second_formulation(name: str, width: int, height: int) -> None:
    fields = SETTINGS[name]
    inputs = crowd(7, width, height, 4, 3 * (9 + fields.get("iou_aware", True)))
    assert red(reference(inputs, classes=4, **fields), dense(inputs, 4, **fields), 2e-6) == set()


@pytest.mark.parametrize(
    ("fault", "term"),
    [("no_scores", "cls"), ("no_size_weight", "wh"), ("ignore_level", "obj"), ("ignore_below", "obj")],
)
def test_faults_are_seen(fault: truth.Fault, term: str) -> None:
    inputs, fields = crowd(7, 128, 128, 4, 30), {"ignore_threshold": 0.3}
    assert term in red(reference(inputs, classes=4, **fields), dense(inputs, 4, **fields, fault=fault), 1e-4)


def test_a_box_without_score_spares_background_and_nothing_else() -> None:
    """It gets no target, but PaddleDetection tests predictions against it. Here every prediction is its anchor in the
    middle of its cell, and the box is the anchor 156x198 of the middle cell of stride 32: that prediction is spared,
    and those above and below, 166 / (2 * 198 - 166) = 0.72; not those beside, 124 / (2 * 156 - 124) = 0.66."""
    inputs = g2()
    for name in HEADS:
        inputs[name] = np.zeros_like(inputs[name])
    inputs["boxes"][0, 1], inputs["scores"][0, 1] = (48 - 78, 48 - 99, 48 + 78, 48 + 99), 0.0
    spared = reference(inputs, classes=4)
    inputs["valid"][0, 1] = False
    free = reference(inputs, classes=4)
    assert {name for name in free if spared[name] != free[name]} == {"obj", "loss"}
    assert free["obj"] - spared["obj"] == pytest.approx(3 * np.log(2) / 2, rel=1e-9)
