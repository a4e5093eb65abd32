"""Running a backend in a process of its own, and fixtures: one tiny detector with weights and a batch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from portdet.models import Detector, load_model
from portdet.reference.distance import distance
from portdet.session import Arrays, Batch
from tests.patience import GUARD

ROOT = Path(__file__).parents[2]
PACKAGES = {"torch": "torch", "mindspore": "mindspore", "paddle": "paddle"}

# of fixture G1, from mindspore-ai/models' own loss in MindSpore, which printed seven digits
G1_LOSSES = {"loss": 477.13345, "big": 16.97483, "medium": 93.31130, "small": 366.84738}


def require(backend: str) -> None:
    """Tests need all three frameworks; one that is absent fails them here, with words."""
    assert importlib.util.find_spec(PACKAGES[backend]) is not None, f"{backend} is not installed: make setup"


def run_child(script: str, *arguments: str, inputs: Arrays | None = None, timeout: float = GUARD) -> Arrays:
    """Run `tests/backends/<script> IN.npz OUT.npz arguments...` in an empty folder; the arrays it wrote.

    A child that fails fails the test with the end of its standard error.
    """
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "in.npz"), **(inputs or {}))
        path = os.pathsep.join(map(str, (ROOT, ROOT / "backends", ROOT / "weights_convert")))
        done = subprocess.run(
            [sys.executable, "-W", "error:::portdet", str(Path(__file__).with_name(script)), "in.npz", "out.npz",
             *arguments],
            cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=timeout,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{script} {arguments}: {done.stderr[-4000:]}"
        with np.load(Path(folder, "out.npz")) as found:
            return dict(found)


def below(found: Arrays, prefix: str) -> Arrays:
    """The arrays whose names start with `prefix/`, without it."""
    return {name.removeprefix(f"{prefix}/"): array for name, array in found.items() if name.startswith(f"{prefix}/")}


def far(got: Arrays, want: Arrays, bound: float) -> dict[str, float]:
    """The arrays that lie further apart than `bound`, the furthest first. Both must have the same names.

    Arrays that are small beside the others count as 0.002 of the largest: the gradient of a norm's weight before
    another norm is a difference of large numbers, and all frameworks are off by percents in it.
    """
    assert set(got) == set(want)
    least = 2e-3 * max(float(np.abs(array).max(initial=0.0)) for array in want.values())
    apart = {name: distance(got[name], want[name], least) for name in want}
    return dict(sorted(((n, d) for n, d in apart.items() if not d <= bound), key=lambda item: -item[1]))


def tiny(width: float, side: int, seed: int) -> tuple[Detector, Arrays, Batch]:
    """YOLOv3 with one block a stage and 3 classes; weights drawn in file order; two images of the same 3 boxes."""
    section: dict[str, Any] = {"name": "yolov3", "classes": 3, "width": width, "depths": (1, 1, 1, 1, 1)}
    detector = load_model(section, imgsz=side, max_boxes=8)
    random = np.random.RandomState(seed)
    weights: Arrays = {}
    for name, info in detector.graph.weights().items():
        if len(info.shape) == 4:
            weights[name] = random.randn(*info.shape) / np.sqrt(np.prod(info.shape[1:]))
        elif name.endswith("conv6.bias"):
            weights[name] = random.randn(*info.shape) * 0.1
        else:
            weights[name] = np.full(info.shape, float(name.endswith(("norm.weight", "running_var"))))
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    images = random.randn(2, 3, side, side).astype(np.float32)
    boxes, labels, valid = np.zeros((2, 8, 4), np.float32), np.zeros((2, 8), np.int32), np.zeros((2, 8), bool)
    boxes[:, :3] = np.array([(10, 20, 41, 63), (50, 5, 90, 40), (3, 3, 9, 8)]) * (side / 96)
    labels[:, :3], valid[:, :3] = (1, 2, 0), True
    return detector, weights, Batch(images, boxes, labels, valid, np.arange(2))


def g1() -> tuple[Detector, Arrays, Batch]:
    """The fixture whose losses G1_LOSSES are."""
    return tiny(1 / 8, 96, 0)


def smooth() -> tuple[Detector, Arrays, Batch]:
    """A fixture for gradients. In G1 some inputs of ReLUs are below 1e-6: float32 sees them on either side of zero, and
    even torch's gradients are off by 3 %. Here none comes nearer to zero than 2.7e-5 in five steps (torch float64)."""
    return tiny(1 / 32, 64, 46)
