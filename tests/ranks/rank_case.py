"""What one rank and several train on: small detectors, their weights, and batches."""

from __future__ import annotations

from typing import Any

import numpy as np

from portdet.models import Detector, load_model
from portdet.session import Arrays, Batch, Group, Recipe
from portdet.spec.init import initial_weights
from portdet.train.groups import decays
from tests.backends.harness import smooth

COUNT, SIDE = 4, 64


def case(model: str) -> tuple[Detector, Arrays, Batch]:
    """A small detector, its weights and COUNT images with one to three boxes each.

    Seeds of which no input of a ReLU is so near to 0 that its sign depends on the order of sums.
    """
    if model == "yolov3":
        detector, weights, _ = smooth()
        return detector, weights, drawn(2)
    # DropBlock normalises by each rank's own mask, in PaddleDetection too
    section: dict[str, Any] = {"name": "ppyolo", "variant": "nano", "classes": 3, "drop_block": False}
    detector = load_model(section, imgsz=SIDE, max_boxes=8)
    return detector, initial_weights(detector.graph, 20), drawn(20)


def drawn(seed: int, side: int = SIDE) -> Batch:
    """COUNT images with one to three boxes each."""
    random = np.random.RandomState(seed)
    images = random.randn(COUNT, 3, side, side).astype(np.float32)
    start = random.uniform(0, 0.5 * side, (COUNT, 8, 2))
    boxes = np.concatenate([start, start + random.uniform(0.1 * side, 0.45 * side, (COUNT, 8, 2))], 2)
    valid = np.arange(8) < random.randint(1, 4, (COUNT, 1))
    labels = random.randint(0, 3, (COUNT, 8)).astype(np.int32) * valid
    boxes = (boxes * valid[..., None]).astype(np.float32)
    return Batch(images, boxes, labels, valid, np.arange(COUNT), scores=valid.astype(np.float32))


def recipe_of(detector: Detector, *, frozen: int = 0) -> Recipe:
    """Two groups, clipped, with EMA; the first `frozen` weights are in none."""
    shapes = {name: info.shape for name, info in detector.graph.weights().items() if info.trainable}
    shapes = dict(list(shapes.items())[frozen:])
    heavy = tuple(name for name, shape in shapes.items() if decays(name, shape))
    light = tuple(name for name in shapes if name not in heavy)
    return Recipe((Group(heavy, 5e-4), Group(light, 0.0)), clip_norm=10.0, dynamic_scale=True, ema=True)
