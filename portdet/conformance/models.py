"""Whole detectors: losses, predictions, activations, batch statistics and gradients, against the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from portdet.backends import load_backend, open_session
from portdet.conformance.fixtures import fixture
from portdet.conformance.rows import Row, holds, near
from portdet.lower.target import Target
from portdet.models import Detector
from portdet.outputs import tensors
from portdet.reference import gradients, run
from portdet.session import Array, Arrays, Batch, Group, Options, Recipe, Session, StepValues

FORWARD = 1e-5  # of the largest value, after some twenty layers in float32
WIDE = 1e-12  # the same in float64: 2e-16 for each of some thousand products, in another order
BUFFER = 0.1  # a mean of many values around zero is small; its error is that of the values, which are about 1
STATISTIC = 5e-5  # PP-YOLO's norms at stride 32 see eight values here
SLOPE = 5e-3  # of the slope at the steepest element; float32 leaves 1.6e-3 at the far end of PP-YOLO, 2e-5 elsewhere
VALUES = ("yolov3", "ppyolo")
SLOPES = {"yolov3": 8, "ppyolo, not IoU-aware": 5}
"""Weights whose slope is measured, by two runs of the reference each. The reference's central differences go through
what `stop_gradient` stops, and the overlap that an IoU-aware head aims at is such a value."""


def check(backend: str, options: Options, folder: Path) -> list[Row]:
    """Rows for every detector of the fixtures."""
    rows: list[Row] = []
    for name in dict.fromkeys((*VALUES, *SLOPES)):
        detector, weights, _ = fixture(name)
        try:
            session = open_session(detector, backend, all_trained(detector), options, folder / name[:8].strip())
            session.load_weights(weights)
            rows += [*(_values(name, session, options.mode, load_backend(backend).target) if name in VALUES else ())]
            rows += [*(_slopes(name, session, options.mode) if name in SLOPES else ())]
            session.close()
        except Exception as error:
            rows.append(Row("models", name, options.mode, "failed", f"{type(error).__name__}: {error}"))
    if "float64" in load_backend(backend).other_precisions:
        try:
            rows += _wide(backend, replace(options, precision="float64"), folder / "float64")
        except Exception as error:
            rows.append(Row("models", "float64", options.mode, "failed", f"{type(error).__name__}: {error}"))
    return rows


def all_trained(detector: Detector) -> Recipe:
    """Every trainable weight, plain gradient descent."""
    names = tuple(name for name, info in detector.graph.weights().items() if info.trainable)
    return Recipe((Group(names, 0.0),), momentum=0.0)


def _values(name: str, session: Session, mode: str, target: Target) -> Iterator[Row]:
    detector, weights, batch = fixture(name)
    seen: Arrays = {}

    def record(path: str, output: object) -> None:
        seen.update(tensors(output, path, np.ndarray))

    predictions, _ = run(detector.graph, "predict", False, weights, {"images": batch.images}, record=record)
    yield near("models", f"{name}: predictions", mode, session.predict(batch.images), predictions, FORWARD)
    if mode == "eager":
        found = session.activations(batch.images)
        # a kernel of the framework calls none of what its module holds
        within = tuple(f"{module.path}." for module in detector.graph.walk() if target.native(module))
        apart = sorted(name for name in seen.keys() ^ found.keys() if name in found or not name.startswith(within))
        words = f"differ in {len(apart)}, first {apart[:1]}"
        yield holds("models", f"{name}: names of outputs", mode, not apart, words)
        for path, array in found.items():
            if path in seen:
                yield near("models", f"{name}: output of {path}", mode, array, seen[path], FORWARD)
    inputs = given(batch)
    truth, buffers = run(detector.graph, "loss", True, weights, inputs)
    losses, _ = session.losses_and_gradients(batch)
    for term, value in truth.items():
        got = np.array(losses.get(term, np.nan))
        yield near("models", f"{name}: loss '{term}'", mode, got, np.asarray(value), FORWARD)
    session.train_step(batch, StepValues(0.0))  # moves the statistics alone
    after = session.weights()
    for path, array in buffers.items():
        yield near("models", f"{name}: {path} after a batch", mode, after[path], array, STATISTIC, BUFFER)


def _wide(backend: str, options: Options, folder: Path) -> Iterator[Row]:
    """Predictions and losses of a backend that says it computes in float64."""
    detector, weights, batch = fixture(VALUES[0])
    session = open_session(detector, backend, all_trained(detector), options, folder)
    session.load_weights(weights)
    predictions, _ = run(detector.graph, "predict", False, weights, {"images": batch.images})
    got = session.predict(batch.images)
    yield near("models", "float64: predictions", options.mode, got, predictions, WIDE)
    truth, _ = run(detector.graph, "loss", True, weights, given(batch))
    losses, _ = session.losses_and_gradients(batch)
    for term, value in truth.items():
        got = np.array(losses.get(term, np.nan))
        yield near("models", f"float64: loss '{term}'", options.mode, got, np.asarray(value), WIDE)
    session.close()


def _slopes(name: str, session: Session, mode: str) -> Iterator[Row]:
    """The steepest element of some tensors, by central differences of the reference."""
    detector, weights, batch = fixture(name)
    _, grads = session.losses_and_gradients(batch)
    chosen = [list(grads)[i] for i in np.linspace(0, len(grads) - 1, SLOPES[name]).astype(int)]
    places = {path: [int(np.abs(grads[path]).argmax())] for path in chosen}
    slopes = gradients(detector.graph, "loss", True, weights, given(batch), lambda out: out["loss"], places, step=1e-6)
    for path, slope in slopes.items():
        got = grads[path].reshape(-1)[places[path]]
        yield near("models", f"{name}: gradient of {path}", mode, got, slope, SLOPE, least=1e-3)


def given(batch: Batch) -> dict[str, Array]:
    """The batch as inputs of the graph."""
    named: dict[str, Any] = vars(batch)
    return {name: array for name, array in named.items() if array is not None and name != "image_ids"}
