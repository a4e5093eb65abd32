"""A small detector and its inputs, traced once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from portdet.ir.graph import ModuleGraph
from portdet.models import Detector, load_model

Inputs = dict[str, np.ndarray[Any, Any]]


def random_weights(graph: ModuleGraph) -> Inputs:
    random = np.random.default_rng(0)
    return {
        name: random.uniform(0.5, 1.5, info.shape)
        if len(info.shape) == 1
        else random.normal(size=info.shape) / np.sqrt(np.prod(info.shape[1:]))
        for name, info in graph.weights().items()
    }


@pytest.fixture(scope="session")
def trace_tiny() -> Callable[..., Detector]:
    """YOLOv3 of 1/8 width with one block a stage, traced at the asked sizes."""

    def build(**sizes: int) -> Detector:
        section = {"name": "yolov3", "classes": 3, "width": 0.125, "depths": (1, 1, 1, 1, 1)}
        return load_model(section, **{"imgsz": 96, "batch": 2, "max_boxes": 8, **sizes})

    return build


@pytest.fixture(scope="session")
def tiny(trace_tiny: Callable[..., Detector]) -> Detector:
    return trace_tiny()


@pytest.fixture(scope="session")
def weights(tiny: Detector) -> Inputs:
    return random_weights(tiny.graph)


@pytest.fixture(scope="session")
def batch() -> Callable[..., Inputs]:
    """Images and boxes: (images, side, boxes per image)."""

    def draw(images: int, side: int, boxes: int) -> Inputs:
        random = np.random.default_rng(1)
        corner = random.uniform(0, side * 0.6, (images, boxes, 2))
        return {
            "images": random.normal(size=(images, 3, side, side)),
            "boxes": np.concatenate([corner, corner + random.uniform(2, side * 0.4, corner.shape)], axis=2),
            "labels": random.integers(0, 3, (images, boxes)).astype(np.int32),
            "valid": random.random((images, boxes)) < 0.8,
        }

    return draw
