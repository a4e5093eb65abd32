"""YOLOv3 with weighed boxes on each backend, against torch in float64, and that against the reference.

Bounds of test_ppyolo_variants.py: losses 5e-5 of the value, gradients 3e-3 of a tensor's largest, in MindSpore 1e-2.
"""

from __future__ import annotations

import numpy as np
import pytest

from portdet.reference import run
from portdet.session import Arrays
from tests.backends.harness import below, far, require, run_child
from tests.backends.mixed_child import case

COMPILED = [pytest.param(f"{name}-compiled", marks=pytest.mark.slow) for name in ("torch", "paddle", "mindspore")]


@pytest.fixture(scope="module")
def exact() -> Arrays:
    require("torch")
    return run_child("mixed_child.py", "torch", "eager", "float64")


@pytest.mark.parametrize("where", ["torch-eager", "paddle-eager", "mindspore-eager", *COMPILED])
def test_losses_and_gradients(where: str, exact: Arrays) -> None:
    backend, mode = where.split("-")
    require(backend)
    found = run_child("mixed_child.py", backend, mode, "float32")
    assert far(below(found, "losses"), below(exact, "losses"), 5e-5) == {}
    bound = 1e-2 if backend == "mindspore" else 3e-3
    assert far(below(found, "gradients"), below(exact, "gradients"), bound) == {}


def test_float64_is_the_reference_and_weights_count(exact: Arrays) -> None:
    detector, weights, inputs = case()
    want = below(exact, "losses")
    losses, _ = run(detector.graph, "loss", True, weights, inputs)
    assert far({name: np.asarray(value) for name, value in losses.items()}, want, 1e-12) == {}
    even, _ = run(detector.graph, "loss", True, weights, inputs | {"scores": inputs["valid"].astype(np.float32)})
    apart = far({name: np.asarray(value) for name, value in even.items()}, want, 1e-3)
    assert set(apart) >= {"xy", "wh", "obj", "cls"}, "every term knows of the weights"
