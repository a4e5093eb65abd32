"""`python -m tests.convert.ppdet_child`: outputs of converted weights in one backend, and of planted faults."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from portdet.backends import open_session
from portdet.models import layers, load_model
from portdet.processes.child import serve
from portdet.session import Arrays, Batch, Group, Options, Recipe, StepValues
from portdet.spec import BatchNorm2d
from portdet_convert import load_canonical
from tests.convert.ppdet_case import MODEL, SIDE, boxes, images, kept


def outputs(weights: str, backend: str, fault: str = "") -> Arrays:
    """Raw heads, predictions and the losses in training mode; with a fault, the first two of a wrong detector."""
    section = MODEL | ({"activation": "relu"} if fault == "activation" else {})
    section |= {"padding": "same"} if fault == "padding" else {}
    if fault.startswith("eps "):
        vars(layers)["BatchNorm2d"] = partial(BatchNorm2d, eps=float(fault.removeprefix("eps ")))
    detector = load_model(section, imgsz=SIDE, max_boxes=3)
    shapes = {name: info.shape for name, info in detector.graph.weights().items()}
    arrays, _ = load_canonical(weights, shapes)
    if fault.startswith("swap "):
        a, b = fault.split()[1:]
        arrays[a], arrays[b] = arrays[b], np.abs(arrays[a]) if b.endswith("running_var") else arrays[a]
    recipe = Recipe((Group(("backblock2.conv6.bias",), 0.0),), momentum=0.0)
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(detector, backend, recipe, Options(mode="eager", threads=1), Path(folder))
        session.load_weights(arrays)
        found = session.activations(images())
        out = kept([found[f"backblock{i}.conv6"] for i in range(3)]) | {"rows": session.predict(images())}
        if fault:
            return out
        corners, labels = boxes()
        all_of_them = np.ones(labels.shape, bool)
        batch = Batch(images(), corners, labels, all_of_them, np.arange(2), all_of_them.astype(np.float32))
        losses = session.train_step(batch, StepValues(lr=0.0)).losses
        return out | {name if name == "loss" else f"loss_{name}": np.array(value) for name, value in losses.items()}


def run(request: Any) -> None:
    """Write `outputs` of the request to its path "to", as npz."""
    np.savez(request["to"], **outputs(request["weights"], request["backend"], request["fault"]))


if __name__ == "__main__":
    serve(run)
