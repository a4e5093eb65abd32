"""Full PP-YOLO r50vd-DCN on each backend against PaddleDetection itself: features, heads, boxes, losses, gradients.

Bounds: heads 1e-4, features 1e-5 of the largest value, losses 2e-5. Gradients below the heads pass hundreds of (leaky)
ReLUs on grids of 4 to 64 cells, some of which stand on the other side of zero in one program's float32: see
`test_peers_on_backends`. Measured, largest value or l2 norm of a gradient, median / worst of 240: torch 0.09 % / 0.8 %,
paddle 0.05 % / 0.9 %; its elements, worst of the 32 that are stored whole: 2.6 %.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.models import load_model
from tests.backends import ppyolo_peer as peer
from tests.backends import ppyolo_peer_compare as compare
from tests.backends.harness import require, run_child
from tests.bundles import near
from tests.models import ppyolo_case as case
from tests.patience import GUARD

Arrays = dict[str, Any]
RATES = np.array([0.0, 2.5e-4, 5e-4])


@pytest.fixture(scope="module")
def bundle(oracles: Path) -> Arrays:
    """Weights and batch for the children."""
    weights = {f"w/{name}": array for name, array in case.weights(oracles).items()}
    return {
        **case.inputs(oracles),
        **weights,
        "model": np.array(json.dumps(case.MODEL)),
        "lr": np.float64(1e-5),
        "rates": RATES,
    }


@pytest.fixture(
    scope="module",
    params=[
        "torch-eager",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("paddle-eager", "mindspore-compiled")),
    ],
)
def ran(request: pytest.FixtureRequest, bundle: Arrays) -> Arrays:
    backend, mode = request.param.split("-")
    require(backend)
    return run_child("peer_child.py", backend, mode, inputs=bundle, timeout=GUARD)


def test_features_heads_and_boxes(ran: Arrays, oracles: Path) -> None:
    want = np.load(oracles / case.BUNDLE / "eval.npz")
    for level in range(3):
        near(ran[f"act/backbone.res{level + 3}"], want[f"backbone.{level}"], 1e-5)
        heads = case.merged(ran[f"act/output{level}"]), want[f"yolo_head.{level}"]
        assert np.abs(heads[0] - heads[1]).max() <= 1e-4
    rows = ran["decoded"]
    corners = np.concatenate([rows[..., :2].clip(0), np.minimum(rows[..., 2:4], 127 / 128)], axis=2)
    np.testing.assert_allclose(corners * 128, want["decode.boxes"], rtol=1e-4, atol=2e-3)
    np.testing.assert_allclose(rows[..., 4:].transpose(0, 2, 1), want["decode.scores"], atol=2e-5)


def test_boxes_after_nms(ran: Arrays, oracles: Path) -> None:
    """Its 100 boxes an image: scores within 1e-5, corners within 0.005 pixels. miemiedetection's convention: others."""
    rows = np.load(oracles / case.BUNDLE / "eval.npz")["out.bbox"].reshape(2, 100, 6)
    want, sizes = {"boxes0": rows[0], "boxes1": rows[1]}, np.full((2, 2), 128)
    config = peer.config("r50vd_dcn")
    detector = load_model(case.MODEL, imgsz=128, batch=1)
    assert compare.boxes(detector.detections(ran["decoded"], sizes, config), want, 1e-5, 5e-3) == []
    config.eval.matrix = "miemiedetection"
    assert compare.boxes(detector.detections(ran["decoded"], sizes, config), want, 1e-5, 5e-3) != []


def test_losses(ran: Arrays, oracles: Path) -> None:
    want = np.load(oracles / case.BUNDLE / "train.npz")
    for name in ("loss", "xy", "wh", "iou", "iou_aware", "obj", "cls"):
        theirs = want["loss.loss" if name == "loss" else f"loss.loss_{name}"]
        assert float(ran[f"loss/{name}"]) == pytest.approx(float(theirs), rel=2e-5), name


@pytest.mark.parametrize("ran", ["torch-eager", pytest.param("paddle-eager", marks=pytest.mark.slow)], indirect=True)
def test_every_gradient(ran: Arrays, oracles: Path) -> None:
    want = np.load(oracles / case.BUNDLE / "train.npz")
    apart = []
    for name, (l2, _, largest, _) in zip(want["grad_names"], want["grad_table"], strict=True):
        got = ran[f"grad/{case.canonical(str(name))}"].astype(np.float64)
        apart.append(max(abs(np.sqrt((got**2).sum()) / l2 - 1), abs(np.abs(got).max() / largest - 1)))
    assert len(apart) == 240
    assert np.median(apart) <= 5e-3
    assert max(apart) <= 3e-2
    worst = []
    for name in want.files:
        if name.startswith("grad."):
            got, theirs = ran[f"grad/{case.canonical(name.removeprefix('grad.'))}"], want[name]
            worst.append(np.abs(got - theirs).max() / np.abs(theirs).max())
    assert np.median(worst) <= 2e-2
    assert max(worst) <= 8e-2
    tip = "neck.yolo_block.1.tip.conv.batch_norm.bias"
    near(ran[f"grad/{case.canonical(tip)}"], want[f"grad.{tip}"], 1e-5)


def test_the_step_after(ran: Arrays, oracles: Path) -> None:
    """Weights after one step of plain SGD, and the loss that follows."""
    want = np.load(oracles / case.BUNDLE / "train.npz")
    names = [name for name in want.files if name.startswith("after_sgd.")]
    assert len(names) == 32
    for name in names:
        near(ran[f"after/{case.canonical(name.removeprefix('after_sgd.'))}"], want[name], 5e-5)
    assert float(ran["loss_after"]) == pytest.approx(float(want["loss_after_sgd.loss"]), rel=1e-4)


def test_its_own_steps_and_average(ran: Arrays, oracles: Path) -> None:
    """Three steps of its recipe in warm-up."""
    want = np.load(oracles / case.BUNDLE / "train.npz")
    np.testing.assert_array_equal(want["traj"][:, 1], RATES)
    np.testing.assert_allclose(ran["steps"], want["traj"][:, 0], rtol=1e-4)
    names = [name for name in want.files if name.startswith("ema3.")]
    assert len(names) == 32
    for name in names:
        near(ran[f"ema/{case.canonical(name.removeprefix('ema3.'))}"], want[name], 5e-4)
