"""PaddleDetection's own PP-YOLO, narrow, on every backend from the file that it writes: heads, boxes after NMS, losses
and gradients with DropBlock's noise, five steps of its recipe with its moving average.

Its gradients and steps are of a run in float64, so in float64 only rounding is left. In float32 it lies itself 1e-5 to
2e-4 of the largest value from its own gradients.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from portdet.session import Arrays
from tests.backends import ppyolo_peer as peer
from tests.backends import ppyolo_peer_compare as compare
from tests.backends.harness import below, require, run_child
from tests.patience import SLOW_GUARD


class Bounds(NamedTuple):
    """Largest differences: heads, losses (relative), scores, gradients (of a tensor's largest value), rounding of
    weights (of the largest value), and beyond it the share of a weight's way that it may be off."""

    heads: float
    losses: float
    scores: float
    gradients: float
    rounding: float
    steps: float


FLOAT64 = Bounds(3e-6, 2e-6, 2e-6, 3e-6, 5e-7, 1e-4)  # targets and the file are float32
FLOAT32 = Bounds(1e-5, 1e-5, 3e-6, 1e-3, 2e-6, 2e-3)
QUICK = [
    "torch-eager-float64-v2",
    "torch-eager-float32-r50vd_dcn",
    "paddle-eager-float32-r50vd_dcn",
    "mindspore-compiled-float32-r18vd",
    "mindspore-compiled-float32-v2",
]
SLOW = [
    f"{run}-{variant}"
    for run in (
        "torch-eager-float64", "torch-eager-float32", "torch-compiled-float32", "paddle-eager-float32",
        "paddle-compiled-float32", "mindspore-eager-float32", "mindspore-compiled-float32",
    )
    for variant in peer.VARIANTS
    if f"{run}-{variant}" not in QUICK
]  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that PaddleDetection's `save_model` wrote, byte for byte."""
    require("paddle")
    folder = tmp_path_factory.mktemp("ppdet")
    hashes = run_child("ppyolo_peer_write.py", "narrow", str(folder), *peer.VARIANTS)
    assert {name: str(found) for name, found in hashes.items()} == {
        variant: peer.facts("narrow")[variant]["sha256"] for variant in peer.VARIANTS
    }
    return folder


class Ran(NamedTuple):
    variant: str
    got: Arrays
    want: Arrays
    names: list[str]
    bounds: Bounds


@pytest.fixture(scope="module", params=[*QUICK, *(pytest.param(run, marks=pytest.mark.slow) for run in SLOW)])
def ran(request: pytest.FixtureRequest, written: Path) -> Ran:
    backend, mode, precision, variant = request.param.split("-")
    require(backend)
    arguments = backend, mode, precision, "narrow", str(written), variant
    found = run_child("ppyolo_peer_child.py", *arguments, timeout=SLOW_GUARD)
    bounds = FLOAT64 if precision == "float64" else FLOAT32
    wanted, names = compare.wanted(variant, "narrow"), compare.canonical(variant, "narrow")
    return Ran(variant, below(found, variant), wanted, names, bounds)


@pytest.fixture(scope="module")
def wrong(written: Path) -> Arrays:
    """Planted faults, of PP-YOLO itself in torch."""
    require("torch")
    found = run_child("ppyolo_peer_child.py", "torch", "eager", "float32", "faults", str(written), "r50vd_dcn")
    return below(found, "r50vd_dcn")


def test_heads(ran: Ran) -> None:
    assert compare.heads(ran.got, ran.want, ran.variant) <= ran.bounds.heads


def test_boxes_after_nms(ran: Ran) -> None:
    """Of each backend's own predictions, in the images' own pixels."""
    assert [len(ran.want[f"boxes{image}"]) for image in range(2)] == [100, 100]
    found = compare.detections(peer.model(ran.variant, "narrow"), ran.variant, ran.got["predictions"])
    assert compare.boxes(found, ran.want, ran.bounds.scores, 5e-4) == []


def test_boxes_of_miemiedetection(ran: Ran) -> None:
    """Its post-process of PaddleDetection's heads: other sizes of images, other clipping, other overlaps."""
    detector, predictions = peer.model(ran.variant, "narrow"), ran.got["predictions"]
    found = compare.detections(detector, ran.variant, predictions, matrix="miemiedetection")
    assert compare.boxes(found, ran.want, ran.bounds.scores, 5e-4, "other") == []
    other = compare.detections(detector, ran.variant, predictions)
    assert compare.boxes(other, ran.want, ran.bounds.scores, 5e-4, "other") != []


def test_losses(ran: Ran) -> None:
    assert compare.losses(ran.got, ran.want) <= ran.bounds.losses


def test_every_gradient(ran: Ran) -> None:
    apart = compare.gradients(ran.got, ran.want, ran.names)
    assert len(apart) == {"r50vd_dcn": 148, "r18vd": 76, "v2": 232}[ran.variant]
    assert {name: far for name, far in apart.items() if far > ran.bounds.gradients} == {}


def test_five_steps(ran: Ran) -> None:
    """Weights, statistics and the evaluated average after each step of Momentum with its decay groups and clip."""
    np.testing.assert_allclose(ran.got["step_losses"], ran.want["step_losses"], rtol=ran.bounds.losses)
    apart = compare.stepped(ran.got, ran.want, ran.names, ran.bounds.rounding)
    assert {name: share for name, share in apart.items() if share > ran.bounds.steps} == {}


def test_biased_variances_are_seen(ran: Ran) -> None:
    """Paddle's own on a CPU, unchanged: all of those of 2 x 3 x 3 values."""
    want = below(peer.outputs("narrow"), ran.variant)
    apart = compare.stepped(ran.got, want, ran.names, ran.bounds.rounding)
    seen = {name.split()[2] for name, share in apart.items() if share > ran.bounds.steps}
    tensors, counts = peer.facts("narrow")[ran.variant]["tensors"], peer.facts("narrow")[ran.variant]["counts"]
    coarse = {
        ours
        for ours, (name, *_) in zip(ran.names, tensors, strict=True)
        if ours.endswith("running_var") and counts[name.removesuffix("._variance")] == 18
    }
    assert coarse
    assert coarse <= seen <= {name for name in ran.names if name.endswith("running_var")}


@pytest.mark.parametrize("fault", ["no scores", "other noise", "swapped images"])
def test_wrong_inputs_are_seen(fault: str, wrong: Arrays) -> None:
    got, want = below(wrong, fault), compare.wanted("r50vd_dcn", "narrow")
    assert compare.losses(got, want) > 10 * FLOAT32.losses
    apart = compare.gradients(got, want, compare.canonical("r50vd_dcn", "narrow"))
    assert np.median(list(apart.values())) > 10 * FLOAT32.gradients


@pytest.mark.parametrize(
    "fault",
    [
        "decay of norms", "no decay of offset biases", "no momentum", "other clip", "shadow from the weights",
        "other correction",
    ],
)  # fmt: skip
def test_wrong_recipes_are_seen(fault: str, wrong: Arrays) -> None:
    got = below(wrong, fault)
    want, names = compare.wanted("r50vd_dcn", "narrow"), compare.canonical("r50vd_dcn", "narrow")
    apart = compare.stepped(got, want, names, FLOAT32.rounding)
    assert max(apart.values()) > 5 * FLOAT32.steps


def test_other_coordinates_are_seen(wrong: Arrays) -> None:
    assert compare.heads(below(wrong, "legacy"), compare.wanted("r50vd_dcn", "narrow"), "r50vd_dcn") > 1e-2


@pytest.mark.parametrize("fault", [{"matrix": "miemiedetection"}, {"conf": 0.5}, {"max_det": 99}, "swapped", "sizes"])
def test_wrong_boxes_are_seen(fault: Any, wrong: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    want, predictions = compare.wanted("r50vd_dcn", "narrow"), wrong["predictions"]
    detector = peer.model("r50vd_dcn", "narrow")
    assert compare.boxes(compare.detections(detector, "r50vd_dcn", predictions), want, FLOAT32.scores, 5e-4) == []
    if fault == "swapped":
        predictions, fault = predictions[::-1], {}
    if fault == "sizes":  # 170 pixels, where PaddleDetection finds 169 again
        monkeypatch.setattr("portdet.postprocess.ppyolo.truncated", lambda sizes, _: sizes)
        fault = {}
    found = compare.detections(detector, "r50vd_dcn", predictions, **fault)
    assert compare.boxes(found, want, FLOAT32.scores, 5e-4) != []
