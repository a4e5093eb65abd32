"""The tiny YOLOv3 on three backends through dumps: one step of each is the same, within what torch shows itself."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from portdet.align.compare import Dump, Envelope, compare
from portdet.outputs import tensors
from portdet.reference import run
from portdet.session import Arrays
from tests.align.compare_case import case
from tests.backends.harness import ROOT, require
from tests.patience import GUARD

SELF, OURS = range(16), range(100, 103)


@functools.cache
def dumps(backend: str) -> dict[str, Dump]:
    require(backend)
    folder = Path(tempfile.mkdtemp())
    seeds = ["-", *map(str, OURS), *(map(str, SELF) if backend == "torch" else [])]
    path = os.pathsep.join(map(str, (ROOT, ROOT / "backends", ROOT / "weights_convert")))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("probe_child.py")), str(folder), backend, *seeds],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=GUARD, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {seed: Dump(folder / f"{backend}{seed}.safetensors") for seed in seeds}


@functools.cache
def envelope() -> Envelope:
    found = Envelope()
    for seed in SELF:
        found.add(dumps("torch")["-"], dumps("torch")[str(seed)])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["mindspore", "paddle"])
def test_a_step_is_the_same_on_every_backend(backend: str) -> None:
    torch, other = dumps("torch"), dumps(backend)
    result = compare(torch["-"], [other[str(seed)] for seed in OURS], envelope())
    print(backend, result.levels())
    assert result.passed, result.words()


def numpy_forward() -> Arrays:
    """What the float64 reference gives, under the probe's names."""
    one = case()
    found: Arrays = {}

    def record(path: str, output: object) -> None:
        found.update(tensors(output, f"forward/{path}", np.ndarray))

    weights = {n.removeprefix("weights/"): a for n, a in one.state.items() if n.startswith("weights/")}
    found["forward/predict"], _ = run(
        one.detector.graph, "predict", False, weights, {"images": one.batch.images}, record=record
    )
    return found


def test_the_forward_is_that_of_the_numpy_reference_in_float64() -> None:
    truth, torch = numpy_forward(), dumps("torch")
    shared = {name: array for name, array in torch["-"].items() if name in truth}
    assert len(shared) > 100
    result = compare(shared, [truth], envelope(), widths=False)
    assert result.passed, result.words()
    assert 0 < max(finding.ratio for finding in result.findings) < 4
    truth["forward/backbone.layer2.0.conv1"] = truth["forward/backbone.layer2.0.conv1"] * (1 + 1e-4)
    first = compare(shared, [truth], envelope(), widths=False).first
    assert first is not None
    assert first.name == "forward/backbone.layer2.0.conv1"
