"""Small detectors with weights and a batch: what the whole-model rows of the checklist run on."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from portdet.models import Detector, load_model
from portdet.session import Arrays, Batch, Group
from portdet.train.groups import decays

_NANO = {"name": "ppyolo", "variant": "nano", "classes": 3, "width": 4, "neck_width": 16, "drop_block": False}
SIDE = 64  # pixels
SECTIONS: dict[str, tuple[dict[str, Any], int]] = {
    "yolov3": ({"name": "yolov3", "classes": 3, "width": 1 / 32, "depths": (1, 1, 1, 1, 1)}, 46),
    "ppyolo": (_NANO, 1),
    "ppyolo, not IoU-aware": ({**_NANO, "iou_aware": False}, 1),
}
"""Model section and seed. In yolov3 no ReLU's input is nearer to zero than 2.7e-5 in five steps."""


@functools.cache
def fixture(name: str) -> tuple[Detector, Arrays, Batch]:
    """The detector, its weights by canonical name, two images with three boxes each. Do not write into them."""
    section, seed = SECTIONS[name]
    detector = load_model(section, imgsz=SIDE, max_boxes=8)
    random = np.random.RandomState(seed)
    weights = {n: _drawn(n, info.shape, random) for n, info in detector.graph.weights().items()}
    images = random.randn(2, 3, SIDE, SIDE).astype(np.float32)
    boxes, labels, valid = np.zeros((2, 8, 4), np.float32), np.zeros((2, 8), np.int32), np.zeros((2, 8), bool)
    boxes[:, :3] = np.array([(10, 20, 41, 63), (50, 5, 90, 40), (3, 3, 9, 8)]) * (SIDE / 96)
    labels[:, :3], valid[:, :3] = (1, 2, 0), True
    scores = valid * np.array([0.7], np.float32) if detector.scores else None
    return detector, weights, Batch(images, boxes, labels, valid, np.arange(2), scores)


def two_groups(detector: Detector, decay: float, lr_scale: float = 1.0) -> tuple[Group, Group]:
    """All trained weights: those with decay, and the others, whose rate is `lr_scale` times the first ones'."""
    shapes = {name: info.shape for name, info in detector.graph.weights().items() if info.trainable}
    decayed = tuple(name for name, shape in shapes.items() if decays(name, shape))
    return Group(decayed, decay), Group(tuple(name for name in shapes if name not in decayed), 0.0, lr_scale)


def _drawn(name: str, shape: tuple[int, ...], random: np.random.RandomState) -> np.ndarray[Any, np.dtype[np.float32]]:
    """In the order of the graph: kernels keep the size of what they see, offsets of deformable taps are parts of one
    pixel, norms are as at the start."""
    if len(shape) == 4:
        values = random.randn(*shape) / np.sqrt(np.prod(shape[1:]))
    elif name.endswith((".conv6.bias", "conv_offset.bias")) or name.startswith("output"):
        values = random.randn(*shape) * 0.1
    else:
        values = np.full(shape, float(name.endswith(("norm.weight", "running_var"))))
    return np.asarray(values, np.float32)
