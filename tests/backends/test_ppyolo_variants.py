"""PP-YOLO's variants on each backend.

Narrow ones, with DropBlock's noise, against torch in float64: predictions 5e-6 of the largest value, losses 5e-5,
gradients 3e-3 (measured: 1.3e-6, 1.4e-5, 9e-4). Full ones with PaddleDetection's weights against
PaddleDetection: outputs of the heads 1e-4, losses 1e-4 (measured: 1.6e-5, 3e-5).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from portdet.backends import load_backend, source_text
from portdet.reference import run
from portdet.reference.distance import distance
from portdet.session import Arrays
from tests.backends.harness import below, far, require, run_child
from tests.convert import ppyolo_case
from tests.models.ppyolo_case import merged
from tests.models.ppyolo_narrow import VARIANTS, narrow
from tests.patience import GUARD


def slow(*runs: str) -> list[Any]:
    return [pytest.param(run, marks=pytest.mark.slow) for run in runs]


@pytest.fixture(scope="module")
def exact() -> Arrays:
    require("torch")
    return run_child("variants_child.py", "torch", "eager", "float64", "narrow", *VARIANTS)


@pytest.fixture(scope="module", params=["torch-eager", "paddle-eager", *slow("mindspore-compiled", "paddle-compiled")])
def narrow_ran(request: pytest.FixtureRequest) -> Arrays:
    backend, mode = request.param.split("-")
    require(backend)
    return run_child("variants_child.py", backend, mode, "float32", "narrow", *VARIANTS, timeout=GUARD)


@pytest.fixture(scope="module", params=["torch-eager", *slow("paddle-eager", "mindspore-compiled")])
def full_ran(request: pytest.FixtureRequest) -> Arrays:
    backend, mode = request.param.split("-")
    require(backend)
    return run_child("variants_child.py", backend, mode, "float32", "full", *ppyolo_case.CONFIGS, timeout=GUARD)


@pytest.mark.parametrize("variant", VARIANTS)
def test_narrow_variants(variant: str, narrow_ran: Arrays, exact: Arrays) -> None:
    got, want = below(narrow_ran, variant), below(exact, variant)
    assert distance(got["predictions"], want["predictions"]) <= 5e-6
    assert far(below(got, "losses"), below(want, "losses"), 5e-5) == {}
    assert far(below(got, "gradients"), below(want, "gradients"), 3e-3) == {}


def test_composed_deformable_convolutions_give_the_kernels_results(narrow_ran: Arrays) -> None:
    native, composed = below(narrow_ran, "r50vd_dcn"), below(narrow_ran, "composed")
    assert distance(composed["predictions"], native["predictions"]) <= 5e-6
    assert far(below(composed, "losses"), below(native, "losses"), 5e-5) == {}
    assert far(below(composed, "gradients"), below(native, "gradients"), 3e-3) == {}


@pytest.mark.parametrize(
    ("backend", "kernel"), [("mindspore", "ops.deformable_conv2d("), ("paddle", ".deform_conv2d(")]
)
def test_composed_leaves_the_kernel_out(backend: str, kernel: str) -> None:
    native, composed = (
        source_text(narrow(name)[0], load_backend(backend).target) for name in ("r50vd_dcn", "composed")
    )
    assert kernel in native
    assert "def deformed(" not in native
    assert kernel not in composed
    assert "def deformed(" in composed


@pytest.mark.parametrize("variant", VARIANTS)
def test_float64_is_the_reference(variant: str, exact: Arrays) -> None:
    detector, weights, inputs = narrow(variant)
    predictions, _ = run(detector.graph, "predict", False, weights, {"images": inputs["images"]})
    losses, _ = run(detector.graph, "loss", True, weights, inputs)
    want = below(exact, variant)
    assert distance(predictions, want["predictions"]) <= 1e-12
    assert far({name: np.asarray(value) for name, value in losses.items()}, below(want, "losses"), 1e-12) == {}


@pytest.mark.parametrize("variant", ppyolo_case.CONFIGS)
def test_full_variants_are_ppdets(variant: str, full_ran: Arrays) -> None:
    with np.load(ppyolo_case.OUTPUTS) as stored:
        want = below(dict(stored), variant)
    got = below(full_ran, variant)
    heads = [got[f"output{level}"] for level in range(2 if variant == "r18vd" else 3)]
    found = ppyolo_case.kept([merged(head, 0.5) for head in heads] if variant == "v2" else heads)
    assert max(float(np.abs(found[name] - want[name]).max()) for name in found) <= 1e-4
    losses = {name: value for name, value in want.items() if name.startswith("loss")}
    assert len(losses) == len(below(got, "losses"))
    for name, value in losses.items():
        assert float(got[f"losses/{name.removeprefix('loss_')}"]) == pytest.approx(float(value), rel=1e-4), name
