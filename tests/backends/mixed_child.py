"""YOLOv3 in profile ppdet, its boxes weighed, on one backend: `mixed_child.py IN.npz OUT.npz BACKEND MODE PRECISION`.

Writes losses and all gradients.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from portdet.backends import open_session
from portdet.models import Detector, load_model
from portdet.session import Arrays, Batch, Group, Options, Recipe

SECTION: dict[str, Any] = {
    "name": "yolov3", "profile": "ppdet", "classes": 3, "width": 1 / 16, "depths": (1, 1, 1, 1, 1),
}  # fmt: skip


def case() -> tuple[Detector, Arrays, Arrays]:
    """The detector, weights, and two images of mixed boxes: two share a place, and one has no weight."""
    detector = load_model(SECTION, imgsz=64, max_boxes=5)
    random = np.random.RandomState(9)
    weights: Arrays = {}
    for name, info in detector.graph.weights().items():
        drawn = random.randn(*info.shape)
        if len(info.shape) == 4:
            weights[name] = drawn / np.sqrt(np.prod(info.shape[1:]))
        else:
            kept = name.endswith(("norm.weight", "running_var"))
            weights[name] = np.abs(1 + 0.1 * drawn) if kept else 0.1 * drawn
    boxes = np.array([(6, 8, 30, 40), (7, 9, 31, 41), (40, 4, 62, 20), (2, 50, 20, 63), (0, 0, 0, 0)], np.float32)
    inputs: Arrays = {
        "images": random.randn(2, 3, 64, 64).astype(np.float32),
        "boxes": np.stack([boxes, np.where(boxes > 0, 64 - boxes[:, [2, 3, 0, 1]], 0)]).astype(np.float32),
        "labels": np.array([[0, 2, 1, 1, 0], [1, 0, 2, 2, 0]], np.int32),
        "valid": np.array([[1, 1, 1, 1, 0]] * 2, bool),
        "scores": np.array([[0.7, 0.3, 0.3, 0.7, 0], [1, 0, 0.4, 0.6, 0]], np.float32),
    }
    return detector, {name: array.astype(np.float32) for name, array in weights.items()}, inputs


def main() -> None:
    _, target, backend, mode, precision = sys.argv[1:]
    detector, weights, inputs = case()
    trained = tuple(name for name, info in detector.graph.weights().items() if info.trainable)
    options = Options(mode=mode, threads=1, precision=precision)
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(detector, backend, Recipe((Group(trained, 0.0),)), options, Path(folder))
        session.load_weights(weights)
        losses, gradients = session.losses_and_gradients(Batch(**inputs, image_ids=np.arange(2)))
        session.close()
    found = {f"losses/{name}": np.array(value) for name, value in losses.items()}
    np.savez(target, **found, **{f"gradients/{name}": array for name, array in gradients.items()})


if __name__ == "__main__":
    main()
