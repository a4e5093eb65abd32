"""PP-YOLO r50vd-DCN on the reference against PaddleDetection itself: features, heads, boxes, losses, statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.models import Detector, load_model
from portdet.reference import gradients, run
from portdet.session import Arrays
from tests.bundles import near
from tests.models import ppyolo_case as case


@pytest.fixture(scope="module")
def full() -> Detector:
    """46 M weights, 80 classes, two images of 128 px."""
    return load_model(case.MODEL, imgsz=128)


@pytest.fixture(scope="module")
def weights(oracles: Path) -> Arrays:
    return case.weights(oracles)


def test_features_heads_and_boxes(full: Detector, oracles: Path, weights: Arrays) -> None:
    want = np.load(oracles / case.BUNDLE / "eval.npz")
    seen: dict[str, Any] = {}
    images = {"images": case.inputs(oracles)["images"]}
    decoded, _ = run(full.graph, "predict", False, weights, images, record=seen.__setitem__)
    for level in range(3):
        near(seen["backbone"][level], want[f"backbone.{level}"], 5e-6)
        near(seen["neck"][level], want[f"neck.{level}"], 2e-5)
        assert np.abs(case.merged(seen[f"output{level}"]) - want[f"yolo_head.{level}"]).max() <= 5e-5
    corners = np.concatenate([decoded[..., :2].clip(0), np.minimum(decoded[..., 2:4], 127 / 128)], axis=2)
    np.testing.assert_allclose(corners * 128, want["decode.boxes"], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(decoded[..., 4:].transpose(0, 2, 1), want["decode.scores"], atol=1e-5)


def test_losses_and_statistics(full: Detector, oracles: Path, weights: Arrays) -> None:
    want = np.load(oracles / case.BUNDLE / "train.npz")
    losses, updated = run(full.graph, "loss", True, weights, case.inputs(oracles))
    assert set(losses) == {"loss", "xy", "wh", "iou", "iou_aware", "obj", "cls"}
    for name, value in losses.items():
        theirs = want["loss.loss" if name == "loss" else f"loss.loss_{name}"]
        assert float(value) == pytest.approx(float(theirs), rel=5e-6), name
    after = np.load(oracles / case.BUNDLE / "bn_after_train_forward.npz")
    assert len(after.files) == 56
    for theirs in after.files:
        ours, stored = case.canonical(theirs), after[theirs]
        if ours.endswith("running_var"):
            stored = case.stored_variance(ours, weights[ours], stored)
        near(updated[ours], stored, 2e-5)


@pytest.mark.slow
def test_a_few_gradients(full: Detector, oracles: Path, weights: Arrays) -> None:
    """Of the heads, by central differences. Further down, leaky ReLUs that stand on the other side of zero in float32
    move gradients by 0.1 %; all of them are the backends' tests."""
    want = np.load(oracles / case.BUNDLE / "train.npz")
    first = dict(zip(want["grad_names"].tolist(), want["grad_table"][:, 3].tolist(), strict=True))
    picked = {f"output{level}.bias": (0,) for level in range(3)}
    got = gradients(full.graph, "loss", True, weights, case.inputs(oracles), lambda out: out["loss"], picked, step=1e-5)
    for level in range(3):
        theirs = first[f"yolo_head.yolo_output.{level}.bias"]
        assert got[f"output{level}.bias"][0] == pytest.approx(theirs, rel=2e-4, abs=1e-6)


@pytest.mark.parametrize("fault", [{"coord_range": "legacy"}, {"deformable": False}, {"iou_factor": 0.5}])
def test_a_fault_is_seen(fault: dict[str, Any], oracles: Path, weights: Arrays) -> None:
    other = load_model({**case.MODEL, **fault}, imgsz=128, batch=1)
    given = dict(weights)
    if "deformable" in fault:
        given = {name: array for name, array in weights.items() if "conv_offset" not in name}
        for block in range(3):
            middle = f"backbone.res5.{block}.conv2.conv"
            given[f"{middle}.weight"] = given.pop(f"{middle}.conv.weight")
    images = {"images": case.inputs(oracles)["images"][:1]}
    decoded, _ = run(other.graph, "predict", False, given, images, dtype=np.float32)
    want = np.load(oracles / case.BUNDLE / "eval.npz")["decode.scores"][:1]
    assert np.abs(decoded[..., 4:].transpose(0, 2, 1) - want).max() > 1e-3
