"""PaddleDetection's YOLOv3-DarkNet53 with weights by formula: what its tests and their maker share.

`ppdet_yolov3.json` lists the tensors of PaddleDetection's `.pdparams`: name, Paddle's internal name, shape.
`ppdet_yolov3.npz` holds its outputs. Both were measured by `make_ppdet_fixture.py`.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from portdet.session import Array, Arrays

NAMES, OUTPUTS = (Path(__file__).with_name(f"ppdet_yolov3.{suffix}") for suffix in ("json", "npz"))
SIDE = 96
EVERY = (1, 1, 7)  # of the values of each level's head; 7 has no factor in common with 255 channels or 144 cells
MODEL: dict[str, Any] = {"name": "yolov3", "profile": "ppdet"}


def facts() -> dict[str, Any]:
    """The content of the JSON fixture."""
    found: dict[str, Any] = json.loads(NAMES.read_text(encoding="utf-8"))
    return found


def value(name: str, shape: tuple[int, ...]) -> Array:
    """Weights of ppdet's tensor `name`, float32, for outputs of standard deviation 0.7 to 1 and largest value 4.

    Variances lie between 0.5 and 10. No value passes a function that differs between processors by its last bit.
    """
    normal = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    leaf = name.rpartition(".")[2]
    if len(shape) == 4:
        normal *= (1.4 if "yolo_output" in name else 1.0) / np.sqrt(np.prod(shape[1:]))
    elif leaf == "_variance":
        normal = 0.5 + 0.5 * normal * normal
    elif leaf == "weight":  # the sums of residual blocks stay small
        normal = (1.0 + 0.2 * normal) * (0.25 if ".stage." in name and ".conv2." in name else 1.0)
    else:
        normal *= 0.3 if leaf == "_mean" else 0.2
    return normal.astype(np.float32)


def images() -> Array:
    """Two normalised images (2, 3, 96, 96)."""
    return np.random.RandomState(96).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)


def boxes() -> tuple[Array, Array]:
    """Ground truth in pixels (2, 3, 4), x1 y1 x2 y2, and labels (2, 3) int32; no two boxes share a cell."""
    pixels = np.array([(10, 20, 41, 63), (50, 5, 90, 40), (3, 70, 21, 90)], np.float32)
    return np.stack([pixels, SIDE - pixels[:, [2, 3, 0, 1]]]), np.array([[1, 22, 7], [0, 79, 7]], np.int32)


def digest(arrays: Mapping[str, Array]) -> str:
    """SHA-256 of names and float32 bytes in order."""
    hashed = hashlib.sha256()
    for name, array in arrays.items():
        hashed.update(name.encode())
        hashed.update(np.ascontiguousarray(array, np.float32).tobytes())
    return hashed.hexdigest()


def kept(heads: list[Array]) -> Arrays:
    """What the fixture keeps of the raw outputs, strides 32, 16, 8."""
    return {f"head{i}": head.reshape(-1)[::step] for i, (head, step) in enumerate(zip(heads, EVERY, strict=True))}


def kept_boxes(found: Array, scores: Array) -> Arrays:
    """The same of decoded boxes (2, 567, 4) and scores (2, 80, 567)."""
    return {"boxes": found, "scores": scores.reshape(-1)[::11]}
