"""PaddleDetection's PP-YOLO r18vd and PP-YOLOv2 with weights by formula: what the fixture's maker and its tests share.

`ppyolo.json` lists names and shapes of their tensors, `ppyolo.npz` holds outputs; `make_ppyolo_fixture.py` wrote both.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from portdet.models import Detector, load_model
from portdet.session import Array, Arrays
from portdet_convert import ppyolo
from portdet_convert.rules import rename

CONFIGS = {"r18vd": "ppyolo_r18vd_coco.yml", "v2": "ppyolov2_r50vd_dcn_365e_coco.yml"}
NAMES, OUTPUTS = (Path(__file__).with_name(f"ppyolo.{suffix}") for suffix in ("json", "npz"))
SIDE = 96
EVERY = (1, 3, 11)  # of the values of each level's head; 255 channels and the cells share no factor with 11


def value(name: str, shape: tuple[int, ...]) -> Array:
    """Weights of ppdet's tensor `name`, float32, for outputs of about unit size.

    No value passes a function that differs between processors by its last bit.
    """
    normal = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    leaf = name.rpartition(".")[2]
    if len(shape) == 4:
        normal *= (0.3 if "conv_offset" in name else 1.0) / np.sqrt(np.prod(shape[1:]))
    elif leaf == "_variance":
        normal = 0.5 + 0.5 * normal * normal
    elif leaf == "weight":  # the sums of residual blocks stay small
        normal = (1.0 + 0.2 * normal) * (0.4 if ".branch2b." in name or ".branch2c." in name else 1.0)
    else:
        normal *= 0.3 if leaf == "_mean" else 0.2
    return normal.astype(np.float32)


def names(variant: str) -> dict[str, tuple[int, ...]]:
    """ppdet's tensors and their shapes."""
    found: dict[str, Any] = json.loads(NAMES.read_text(encoding="utf-8"))[variant]
    return {name: tuple(shape) for name, shape in found.items()}


def full(variant: str) -> tuple[Detector, Arrays, Arrays]:
    """Our detector, ppdet's weights under our names, and the inputs of the loss."""
    naming = ppyolo.PPDET_PLAIN if variant == "r18vd" else ppyolo.PPDET
    renamed = rename(naming, {name: value(name, shape) for name, shape in names(variant).items()})
    assert not renamed.unknown
    pixels, labels, scores = boxes()
    inputs = {
        "images": images(), "boxes": pixels, "labels": labels, "valid": np.ones((2, 3), bool), "scores": scores
    }  # fmt: skip
    detector = load_model({"name": "ppyolo", "variant": variant, "drop_block": False}, imgsz=SIDE, max_boxes=3)
    return detector, renamed.arrays, inputs


def images() -> Array:
    """Two normalised images (2, 3, 96, 96)."""
    return np.random.RandomState(96).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)


def boxes() -> tuple[Array, Array, Array]:
    """Ground truth in pixels (2, 3, 4), x1 y1 x2 y2, labels (2, 3) int32, mixup weights (2, 3)."""
    pixels = np.array([(10, 20, 41, 63), (50, 5, 90, 40), (3, 70, 21, 90)], np.float32)
    labels = np.array([[1, 22, 7], [0, 79, 7]], np.int32)
    return np.stack([pixels, SIDE - pixels[:, [2, 3, 0, 1]]]), labels, np.array([[0.7, 0.3, 1.0]] * 2, np.float32)


def kept(heads: list[Array]) -> Arrays:
    """What the fixture keeps of the heads' outputs, strides 32, 16, 8; without the expected overlaps' own channels,
    which ppdet has merged into the objectness."""
    return {f"head{i}": head.reshape(-1)[::step] for i, (head, step) in enumerate(zip(heads, EVERY, strict=False))}
