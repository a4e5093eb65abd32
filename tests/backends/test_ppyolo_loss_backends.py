"""PP-YOLO's loss from raw heads on every backend: PaddleDetection's golden values, and gradients against float64."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from portdet.reference import run
from portdet.reference.distance import distance
from portdet.session import Arrays
from tests.backends.harness import below, require, run_child
from tests.backends.ppyolo_spec import G2_GRADIENTS, G2_LOSSES, HEADS, g2, traced
from tests.losses import ppyolo_truth as truth

RUNS = [
    ("torch", "eager"),
    pytest.param(("torch", "compiled"), marks=pytest.mark.slow),
    pytest.param(("mindspore", "eager"), marks=pytest.mark.slow),
    ("mindspore", "compiled"),
    ("paddle", "eager"),
    pytest.param(("paddle", "compiled"), marks=pytest.mark.slow),
]


@functools.cache
def child(backend: str, mode: str) -> Arrays:
    return run_child("ppyolo_child.py", backend, mode, inputs=g2())


@pytest.fixture(params=RUNS, ids=lambda pair: "-".join(pair), scope="module")
def found(request: pytest.FixtureRequest) -> Arrays:
    require(request.param[0])
    return child(*request.param)


@functools.cache
def gradients(fault: truth.Fault = "") -> Arrays:
    return truth.losses(g2(), 4, fault=fault)[1]


def worst(found: Arrays, want: Arrays) -> float:
    return max(distance(found[f"grad/{name}"], want[name]) for name in HEADS)


def test_golden_losses(found: Arrays) -> None:
    got = below(found, "out")
    for name, want in G2_LOSSES.items():
        assert float(got[name]) == pytest.approx(want, rel=1e-5), name


def test_golden_gradients(found: Arrays) -> None:
    """Of PaddleDetection's loss, and the float64 ones that the tests below compare with element by element."""
    for name, want in G2_GRADIENTS.items():
        for gradient in (found[f"grad/{name}"], gradients()[name]):
            got = np.linalg.norm(gradient), np.abs(gradient[:, :3]).sum()
            assert got == pytest.approx(want, rel=2e-6), name
        for fault in ("iou_once", "iou_attached"):
            assert np.linalg.norm(gradients(fault)[name]) != pytest.approx(want[0], rel=1e-4)


def test_predictions_equal_the_reference(found: Arrays) -> None:
    inputs = g2()
    want, _ = run(traced(inputs, classes=4), "loss", True, {}, inputs)
    assert distance(found["out/predictions"], want["predictions"]) <= 2e-6
    changed, _ = run(traced(inputs, classes=4, iou_factor=0.5), "loss", True, {}, inputs)
    assert distance(found["out/predictions"], changed["predictions"]) > 1e-3


def test_gradients_of_the_heads(found: Arrays) -> None:
    """Through both factors of IoU squared, and not through the IoU that the IoU-aware logit is to expect."""
    assert worst(found, gradients()) <= 5e-6


@pytest.mark.parametrize("fault", ["iou_once", "iou_attached", "no_size_weight", "no_scores"])
def test_wrong_gradients_are_found(found: Arrays, fault: Any) -> None:
    assert worst(found, gradients(fault)) > 1e-3


def test_the_second_formulation_by_central_differences() -> None:
    """The float64 gradients that the backends are held to: xy, wh and iou of the box at anchor 3, row 2, column 1."""
    inputs, step = g2(), 1e-6
    inputs["head16"] = inputs["head16"].astype(np.float64)
    for channel in (3, 4, 5, 6, 7, 8):
        at = (0, channel, 2, 1)
        ends = []
        for sign in (1, -1):
            moved = inputs["head16"].copy()
            moved[at] += sign * step
            terms = truth.losses({**inputs, "head16": moved}, 4)[0]
            ends.append(terms["loss"] - terms["iou_aware"])  # its target is held, which differences do not see
        slope = (ends[0] - ends[1]) / (2 * step)
        assert gradients()["head16"][at] == pytest.approx(slope, rel=1e-6, abs=1e-9)
