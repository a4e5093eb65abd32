"""PP-YOLO's variants with narrow layers, weights that vary everything, and two images of 96 px with noise."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from portdet.models import Detector, load_model
from portdet.session import Arrays
from portdet.spec.init import initial_weights

VARIANTS: dict[str, dict[str, Any]] = {
    "r50vd_dcn": {"variant": "r50vd_dcn"},
    "composed": {"variant": "r50vd_dcn", "composed": True},
    "r18vd": {"variant": "r18vd"},
    "v2": {"variant": "v2"},
}


def narrow(variant: str) -> tuple[Detector, Arrays, Arrays]:
    """The detector, weights, and the inputs of its loss. Norms differ from the identity, offsets from zero; outputs are
    small, or the size of a box would be exp(10)."""
    section: dict[str, Any] = {"name": "ppyolo", "classes": 3, "width": 8, "neck_width": 16, **VARIANTS[variant]}
    detector = load_model({**section, "depths": (1, 2, 1, 2)}, imgsz=96, max_boxes=4)
    weights = initial_weights(detector.graph, 0)
    for name, array in weights.items():
        random = np.random.RandomState(zlib.crc32(name.encode()))
        leaf = name.rpartition(".")[2]
        if leaf == "running_var":
            array[...] = 1 + random.random_sample(array.shape)
        elif array.ndim == 1:
            array[...] = (leaf == "weight") + 0.2 * random.standard_normal(array.shape)
        elif "conv_offset" in name:
            array[...] = 0.1 * random.standard_normal(array.shape)
        elif name.startswith("output"):
            array *= 0.2
    random = np.random.RandomState(7)
    boxes = np.zeros((2, 4, 4), np.float32)
    boxes[:, :3] = [(10, 20, 41, 63), (50, 5, 90, 40), (3, 3, 19, 12)]
    valid = boxes[..., 2] > 0
    inputs: Arrays = {
        "images": random.standard_normal((2, 3, 96, 96)).astype(np.float32), "boxes": boxes,
        "labels": np.array([[1, 2, 0, 0]] * 2, np.int32), "valid": valid,
        "scores": (valid * np.array([[0.7], [1.0]])).astype(np.float32),
    }  # fmt: skip
    if detector.noise is not None:
        inputs["noise"] = random.random_sample((2, *detector.noise(96))).astype(np.float32)
    return detector, weights, inputs
