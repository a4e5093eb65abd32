"""PaddleDetection's PP-YOLO run by itself: what the fixture's maker, the children and the tests share.

Two sets of models, both with weights by formula (`ppyolo_case.value`), both from the published configurations:
`narrow` has an eighth of ResNet's channels, 1, 2, 1, 2 blocks, 4 classes and DropBlock with given noise; `full` is the
models as published, DropBlock off.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from portdet.config import Config
from portdet.models import Detector, load_model
from portdet.session import Array, Arrays, Batch
from tests.convert import ppyolo_case
from tests.convert.ppyolo_case import SIDE, images

__all__ = ["SIDE", "images"]

Size = Literal["narrow", "full"]

CONFIGS = {"r50vd_dcn": "ppyolo_r50vd_dcn_1x_coco.yml", **ppyolo_case.CONFIGS}
VARIANTS = tuple(CONFIGS)
SIZES = np.array([(150, 170), (64, 200)])
"""Width and height of the two images before they were stretched to SIDE; PaddleDetection finds 169 for 170 again."""
COUNT = 12
"""Values of a large tensor that the fixtures keep."""
STEPS = 5
WARM = 300
"""Steps of warm-up; published are 4000, in which five steps move no weight visibly."""
DECAY = 0.5
"""L2 decay of the five steps: PaddleDetection's 5e-4 moves no bit of a float32 at their learning rates."""


CLIP = {"r50vd_dcn": 35.0, "r18vd": 0.0, "v2": 35.0}
"""Largest norm of all gradients: 35 in develop's configurations of all three, in release/2.4's of PP-YOLOv2 alone; the
steps of r18vd are those of 2.4."""


def fixture(size: Size, suffix: Literal["json", "npz"]) -> Path:
    return Path(__file__).with_name(f"ppyolo_peer_{size}.{suffix}")


def facts(size: Size) -> dict[str, Any]:
    """Tensors of every variant in the file's order (name, Paddle's internal name, shape), and the file's sha256."""
    found: dict[str, Any] = json.loads(fixture(size, "json").read_text(encoding="utf-8"))
    return found


def outputs(size: Size) -> Arrays:
    """What PaddleDetection computed, by variant."""
    with np.load(fixture(size, "npz")) as stored:
        return dict(stored)


def model(variant: str, size: Size, **fields: Any) -> Detector:
    """The same model of ours; develop's CoordConv has the coordinates of 2.2."""
    section: dict[str, Any] = {"name": "ppyolo", "variant": variant, "coord_range": "ppdet22"}
    if size == "narrow":
        section |= {"classes": 4, "width": 8, "neck_width": 16, "depths": (1, 2, 1, 2)}
    else:
        section |= {"drop_block": False}
    return load_model({**section, **fields}, imgsz=SIDE, max_boxes=3)


def config(variant: str) -> Config:
    """The recipe of the published configuration, but for the decay; its NMS."""
    optim: dict[str, Any] = {"weight_decay": DECAY, "clip_norm": CLIP[variant]}
    return Config.model_validate(
        {
            "optim": optim,
            "ema": {"kind": "threshold", "decay": 0.9998},
            "data": {"imgsz": SIDE, "resize": "stretch"},
            "eval": {"nms_kind": "matrix", "matrix": "ppdet", "conf": 0.01},
        }
    )


def noise(channels: int) -> Array:
    """DropBlock's, uniform (2, channels, 3, 3)."""
    return np.random.RandomState(3).random_sample((2, channels, 3, 3)).astype(np.float32)


def labels(size: Size) -> Array:
    """Classes of the boxes (2, 3) int32."""
    found = ppyolo_case.boxes()[1]
    return found % 4 if size == "narrow" else found


def batch(size: Size, detector: Detector) -> Batch:
    """Two images with three boxes each, of weights 0.7, 0.3 and 1."""
    boxes, _, scores = ppyolo_case.boxes()
    drop = None if detector.noise is None else noise(detector.noise(SIDE)[0])
    valid = np.ones((2, 3), bool)
    return Batch(images(), boxes, labels(size), valid, np.arange(2), scores, drop)


def summary(array: Array) -> Array:
    """A tensor in 2 + COUNT numbers, float64: l2 norm, largest absolute value, and values evenly spread over it, its
    first and last among them; nan where it has fewer."""
    flat = array.astype(np.float64).reshape(-1)
    out: Array = np.full(2 + COUNT, np.nan)
    picked = flat[np.unique(np.linspace(0, flat.size - 1, min(COUNT, flat.size)).astype(np.int64))]
    out[:2] = np.sqrt((flat**2).sum()), np.abs(flat).max()
    out[2 : 2 + picked.size] = picked
    return out
