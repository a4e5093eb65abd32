"""Bundle ppdet_ppyolo_r50vd_dcn under our names: what the tests on the reference and on the backends share.

PaddleDetection develop 666f597, ppyolo_r50vd_dcn_1x_coco at 128 px on two images, DropBlock off, CoordConv of >= 2.2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from portdet.session import Array, Arrays
from portdet_convert.ppyolo import PPDET
from portdet_convert.rules import rename
from tests import bundles

BUNDLE = "ppdet_ppyolo_r50vd_dcn"
MODEL: dict[str, Any] = {"name": "ppyolo", "coord_range": "ppdet22", "drop_block": False}


def canonical(name: str) -> str:
    """PaddleDetection's name -> ours."""
    found = PPDET.canonical(name)
    assert found is not None, name
    return found[0]


def weights(oracles: Path) -> Arrays:
    """The bundle's 392 tensors, by the converter's rules."""
    renamed = rename(PPDET, bundles.weights(oracles / BUNDLE))
    assert (len(renamed.arrays), renamed.unknown, renamed.skipped) == (392, [], {})
    return renamed.arrays


def inputs(oracles: Path) -> Arrays:
    """Images and boxes in pixels, padded to 50."""
    bundle = np.load(oracles / BUNDLE / "inputs.npz")
    boxes, labels, valid = np.zeros((2, 50, 4), np.float32), np.zeros((2, 50), np.int32), np.zeros((2, 50), bool)
    for image in range(2):
        found = bundle[f"raw_box.{image}"]
        boxes[image, : len(found)], labels[image, : len(found)] = found, bundle[f"raw_class.{image}"]
        valid[image, : len(found)] = True
    return {
        "images": bundle["image"], "boxes": boxes, "labels": labels, "valid": valid, "scores": valid.astype(np.float32)
    }  # fmt: skip


def merged(head: Array, factor: float = 0.4) -> Array:
    """A raw output (B, 3 * (6 + C), g, g) as PaddleDetection's head returns it (B, 3 * (5 + C), g, g): the expected
    overlap merged into the objectness, which is a logit again."""
    batch, _, grid, _ = head.shape
    head = head.astype(np.float64)
    expected = head[:, :3].reshape(batch, 3, 1, -1)
    rows = head[:, 3:].reshape(batch, 3, -1, grid * grid)
    product = sigmoid(rows[:, :, 4:5]) ** (1 - factor) * sigmoid(expected) ** factor
    logit = -np.log(np.clip(1 / np.clip(product, 1e-7, 1e7) - 1, 1e-7, 1e7))
    out: Array = np.concatenate([rows[:, :, :4], logit, rows[:, :, 5:]], axis=2).reshape(batch, -1, grid, grid)
    return out


def sigmoid(x: Array) -> Array:
    y: Array = 1 / (1 + np.exp(-x))
    return y


def stored_variance(name: str, before: Array, after: Array) -> Array:
    """PaddleDetection's running variance after a step, as if Paddle had stored the unbiased one: on CPU it stores the
    biased one of 2 x 4 x 4 values (block 0), 2 x 8 x 8 (block 1), ...: tests check units of those levels alone."""
    sides = {"stem1": 64, "stem2": 64, "stem3": 64, "res2": 32, "block0": 4, "block1": 8, "block2": 16}
    count = 2 * next(side for part, side in sides.items() if f".{part}." in name) ** 2
    unbiased: Array = before * 0.9 + (after - before * 0.9) * count / (count - 1)
    return unbiased
