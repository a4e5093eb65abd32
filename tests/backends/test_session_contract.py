"""Outputs of every module under one naming, gradients that change nothing, and precisions: on all backends."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.backends import open_session
from portdet.errors import PortdetError
from portdet.outputs import tensors
from portdet.reference import run
from portdet.reference.distance import distance
from portdet.session import Arrays, Group, Options, Recipe
from tests.backends.contract_child import drawn, traced
from tests.backends.harness import below, require, run_child, smooth

EVERY = pytest.mark.parametrize(
    ("backend", "mode"), [(b, m) for b in ("torch", "mindspore", "paddle") for m in ("eager", "compiled")]
)
NAMES = ["last", "pair.conv", "pair.norm", "pair[0]", "pair[1]", "three.conv", "three[0]", "three[1]", "three[2]"]


@functools.cache
def found(backend: str, mode: str) -> Arrays:
    require(backend)
    return run_child("contract_child.py", backend, mode)


@EVERY
def test_every_output_of_every_module(backend: str, mode: str) -> None:
    weights, batch = drawn()
    want: dict[str, Any] = {}

    def record(path: str, output: object) -> None:
        want.update(tensors(output, path, np.ndarray))

    run(traced(), "predict", False, weights, {"images": batch.images}, record=record)
    got = below(found(backend, mode), "outputs")
    assert sorted(got) == sorted(want) == NAMES
    assert {name: distance(got[name], want[name]) for name in want if distance(got[name], want[name]) > 2e-6} == {}


@EVERY
def test_gradients_change_nothing_and_come_again(backend: str, mode: str) -> None:
    it = found(backend, mode)
    assert it["apart"].tolist() == []
    assert it["repeated"]
    assert len(it["gradients"]) == 6
    assert it["moved"].tolist() == ["weights/pair.norm.running_mean", "weights/pair.norm.running_var"]


@pytest.mark.parametrize("mode", ["eager", "compiled"])
def test_float64_needs_nothing_but_its_name(tmp_path: Path, mode: str) -> None:
    """Against the reference, which computes in float64."""
    require("torch")
    detector, weights, batch = smooth()
    trained = tuple(name for name, info in detector.graph.weights().items() if info.trainable)
    options = Options(mode=mode, threads=1, precision="float64")
    session = open_session(detector, "torch", Recipe((Group(trained, 0.0),), ema=True), options, tmp_path)
    session.load_weights(weights)
    assert {str(array.dtype) for array in session.state().values()} == {"float64"}
    named = {name: array for name, array in vars(batch).items() if array is not None and name != "image_ids"}
    truth, _ = run(detector.graph, "loss", True, weights, named)
    losses, _ = session.losses_and_gradients(batch)
    assert {name: distance(np.array(losses[name]), value) < 1e-12 for name, value in truth.items()} == dict.fromkeys(
        truth, True
    )
    predictions, _ = run(detector.graph, "predict", False, weights, {"images": batch.images})
    assert distance(session.predict(batch.images), predictions) < 1e-12
    session.close()


@pytest.mark.parametrize("backend", ["mindspore", "paddle"])
def test_a_precision_that_a_backend_lacks_is_an_error(tmp_path: Path, backend: str) -> None:
    detector, _, _ = smooth()
    with pytest.raises(PortdetError, match=f"{backend} has no precision 'float64'(.|\n)*for float64 use torch"):
        open_session(detector, backend, Recipe(()), Options(precision="float64"), tmp_path)
    assert backend not in sys.modules
