"""Deformable convolution on every backend and mode, by the framework's kernel and composed, against the reference in
float64, whose differences are the gradients: the reference itself is held to Paddle in tests/spec."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from portdet.backends import load_backend
from portdet.lower import emit
from portdet.reference.distance import distance
from portdet.reference.run import run
from portdet.session import Array, Arrays
from tests.backends.deform_spec import CASES, FORMS, inputs, traced, weight
from tests.backends.harness import below, require, run_child

RUNS = [
    ("torch", "eager"),
    pytest.param(("torch", "compiled"), marks=pytest.mark.slow),
    ("mindspore", "eager"),
    ("mindspore", "compiled"),
    ("paddle", "eager"),
    ("paddle", "compiled"),
]

GRAPHS = {case: traced(case, "composed") for case in CASES}


def reference(case: str, given: Arrays) -> Array:
    tensors = {name: given[name].astype(np.float64) for name in ("x", "offset", "mask")}
    weights = {"deform.conv.weight": given["deform.conv.weight"].astype(np.float64)}
    return np.asarray(run(GRAPHS[case], "loss", True, weights, tensors)[0]["y"])


@functools.cache
def slopes(case: str) -> Arrays:
    """d sum(y * cotangent) by central differences; at zero offsets, which are a kink, from the right, and 0 at -1."""
    given = {name: array.astype(np.float64) for name, array in (inputs(case) | weight()).items()}
    found = {}
    for name in ("x", "offset", "mask", "deform.conv.weight"):
        one_sided = case == "unmoved" and name == "offset"
        ends, step = ((1, 0) if one_sided else (1, -1)), 1e-6
        slope = np.zeros(given[name].shape)
        for index in np.ndindex(slope.shape):
            values = []
            for sign in ends:
                moved = given[name].copy()
                moved[index] += sign * step
                values.append((reference(case, {**given, name: moved}) * given["cotangent"]).sum())
            slope[index] = (values[0] - values[1]) / (step * (ends[0] - ends[1]))
        found[name] = slope
    if case == "unmoved":
        taps = found["offset"].reshape(2, 3, 3, 2, 3, 3)
        taps[:, 0, :, 0, 0, :] = 0  # dy of the upper taps in the first row
        taps[:, :, 0, 1, :, 0] = 0  # dx of the left taps in the first column
    return found


@functools.cache
def child(backend: str, mode: str) -> Arrays:
    return run_child("deform_child.py", backend, mode)


@pytest.fixture(params=RUNS, ids=lambda pair: "-".join(pair), scope="module")
def found(request: pytest.FixtureRequest) -> Arrays:
    require(request.param[0])
    return child(*request.param)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(found: Arrays, case: str, form: str) -> None:
    got = below(found, f"{case}/{form}")
    assert distance(got["y"], reference(case, inputs(case) | weight())) < 2e-6
    gradients = below(got, "grad")
    assert set(gradients) == set(slopes(case))
    assert {name: distance(gradients[name], slopes(case)[name]) for name in gradients} == pytest.approx(
        dict.fromkeys(gradients, 0), abs=5e-6
    )


@pytest.mark.parametrize("backend", ["mindspore", "paddle"])
def test_a_kernel_is_used_where_there_is_one(backend: str) -> None:
    native, composed = (emit(traced("moved", form), load_backend(backend).target, title="") for form in FORMS)
    kernel = {"mindspore": "ops.deformable_conv2d(x", "paddle": "paddle.vision.ops.deform_conv2d(x"}[backend]
    assert [kernel in source for source in (native, composed)] == [True, False]
    for function in ("deformed", "tiles", "neighbours"):
        assert [f"def {function}(" in source for source in (native, composed)] == [False, True]
