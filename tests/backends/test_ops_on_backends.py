"""Every op's generated text, on every backend and mode, against the numpy reference: values, types, gradients."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from portdet.session import Array, Arrays
from tests.backends.harness import below, distance, require, run_child
from tests.backends.ops_spec import Case, cases

RUNS = [
    ("torch", "eager"),
    pytest.param(("torch", "compiled"), marks=pytest.mark.slow),
    ("mindspore", "eager"),
    ("mindspore", "compiled"),
    ("paddle", "eager"),
    ("paddle", "compiled"),
]
CASES, INPUTS = cases()


def want(case: Case, inputs: Arrays = INPUTS) -> Array:
    """The reference's output in float64."""
    wide = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in inputs.items() if n in case.names}
    return np.asarray(case.op.reference(*case.arguments(wide), **case.sample.attrs))


def cotangents() -> Arrays:
    random = np.random.default_rng(1)
    return {c.name: random.uniform(0.5, 1.5, want(c).shape).astype(np.float32) for c in CASES if c.op.smooth}


@functools.cache
def child(backend: str, mode: str) -> Arrays:
    return run_child("ops_child.py", backend, mode, inputs=cotangents())


@pytest.fixture(params=RUNS, ids=lambda pair: "-".join(pair), scope="module")
def found(request: pytest.FixtureRequest) -> Arrays:
    require(request.param[0])
    return child(*request.param)


@functools.cache
def slopes(name: str) -> Array:
    """d sum(out * cotangent) / d input by central differences of the reference."""
    case = next(case for case in CASES if name in case.names)
    if case.op.name == "stop_gradient":
        return np.zeros(INPUTS[name].shape)
    if name == "max_pool2d_2_a":  # all equal: each of four windows gives its gradient to its first pixel
        slope = np.zeros(INPUTS[name].shape)
        slope[0, 0, :2, :2] = cotangents()[case.name][0, 0]
        return slope
    cotangent, step = cotangents()[case.name].astype(np.float64), 1e-6
    inputs = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in INPUTS.items() if n in case.names}
    slope = np.zeros(INPUTS[name].shape)
    for index in np.ndindex(slope.shape):
        ends = []
        for sign in (1, -1):
            moved = inputs[name].copy()
            moved[index] += sign * step
            ends.append((want(case, {**inputs, name: moved}) * cotangent).sum())
        slope[index] = (ends[0] - ends[1]) / (2 * step)
    return slope


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_value_and_type(found: Arrays, case: Case) -> None:
    got, reference = found[f"out/{case.name}"], want(case)
    assert got.dtype == {"f": np.float32, "i": np.int32, "b": np.bool_}[reference.dtype.kind]
    assert distance(got, reference) <= case.op.tolerance


@pytest.mark.parametrize("case", [case for case in CASES if case.op.smooth], ids=lambda case: case.name)
def test_gradient(found: Arrays, case: Case) -> None:
    gradients = below(found, "grad")
    for name in case.names:
        if name in gradients:
            assert distance(gradients[name], slopes(name), least=1e-3) <= 2e-5


def test_gradients_that_are_wrong_are_found() -> None:
    name = "mul_0_a"
    assert distance(slopes(name) * 1.0001, slopes(name), least=1e-3) > 2e-5
