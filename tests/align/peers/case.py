"""What both PP-YOLOs are given: weights under PaddleDetection's names, images, boxes, and inputs of single rules.

Nothing here comes from either program. Perturbed by seed, so that both see the same one-ulp changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from portdet.align.compare import perturb
from portdet.session import Array, Arrays
from tests.convert.ppyolo_case import boxes, images, value

SIDE = 96
CONFIGS = {"r50vd_dcn": "ppyolo_r50vd_dcn_2x_coco.yml", "r18vd": "ppyolo_r18vd_coco.yml"}
EXPERIMENTS = {"r50vd_dcn": "ppyolo_r50vd_2x", "r18vd": "ppyolo_r18vd"}
RATE = 1e-4
SELF_RUNS, PORT_RUNS = range(1, 9), (101, 102, 103)
AS_IT_IS = 0
"""The seed of an unperturbed run."""


def weights(names: Iterable[tuple[str, tuple[int, ...]]], seed: int) -> Arrays:
    """By formula, of about unit gain, for tensors with PaddleDetection's names."""
    arrays = {name: value(name, tuple(shape)) for name, shape in names}
    return perturb(arrays, seed) if seed else arrays


def pictures(seed: int) -> Array:
    """Two normalised images (2, 3, 96, 96)."""
    return perturb({"images": images()}, seed)["images"] if seed else images()


def samples() -> list[dict[str, Any]]:
    """Per image what target assignment takes: boxes as shares of the image (x, y of the centre, w, h), classes, mixup
    weights."""
    pixels, labels, scores = boxes()
    low, high = pixels[..., :2] / SIDE, pixels[..., 2:] / SIDE
    shares = np.concatenate([low + (high - low) / 2, high - low], axis=2)
    return [
        {"image": image, "gt_bbox": box, "gt_class": label, "gt_score": score}
        for image, box, label, score in zip(images(), shares, labels, scores, strict=True)
    ]


_NUMBERED = re.compile(r"(yolo_block|yolo_transition|yolo_output)_(\d)")


def to_ppdet(name: str) -> str:
    """miemiedetection's name of a tensor or module as PaddleDetection has it."""
    name = _NUMBERED.sub(r"\1.\2", name)
    return name.replace("running_mean", "_mean").replace("running_var", "_variance")


# ---------------------------------------------------------------------- inputs of single rules


ANCHORS = [10, 13, 16, 30, 33, 23]
STEPS_PER_EPOCH = 714
RATES = {
    "during warm-up": (0, 20, 1000, 3569),
    "after 4000 steps": (4000, 100_000, 649 * STEPS_PER_EPOCH - 1, 649 * STEPS_PER_EPOCH, 730 * STEPS_PER_EPOCH),
}


def draw(name: str, *shape: int) -> Array:
    """Normal numbers, the same wherever they are drawn."""
    return np.random.RandomState(len(name)).standard_normal(shape).astype(np.float32)


def heads() -> list[tuple[str, Array, int]]:
    """Outputs (2, 27, 12, 12) of the level of stride 8 with four classes, and the side of the image before it became 96
    pixels: sure detections, unsure ones, and sure ones in an image of 170 pixels, which PaddleDetection takes for 169.
    """
    sure = draw("heads", 2, 27, 12, 12)
    sure[:, [2, 3, 11, 12, 20, 21]] = -1.0  # small boxes
    sure[:, [4, 13, 22]] = 4.0
    unsure = sure.copy()
    unsure[:, [4, 13, 22]] = -6.0
    return [("", sure, 96), (" below the threshold", unsure, 96), (" of an image of 170 pixels", sure, 170)]


def put_boxes(name: str, boxes: Array, scores: Array, put: Callable[[str, Array], None]) -> None:
    """Boxes (2, 432, 4), anchors first, and scores (2, 432, 4); boxes of the last row and column apart."""
    grid = boxes.reshape(2, 3, 12, 12, 4)
    put(f"decode/boxes{name}", grid[:, :, 2:10, 2:10])
    put(f"decode/boxes at the border{name}", np.concatenate([grid[:, :, -1], grid[:, :, :, -1]], 2))
    put(f"decode/scores{name}", scores)


def crowd(classes: int, each: int) -> tuple[Array, Array]:
    """Boxes (each, 4) in pixels that overlap in clusters, and scores (classes, each)."""
    random = np.random.RandomState(9)
    centres = random.uniform(60, 240, (6, 2))
    middle = centres[np.arange(each) % 6] + random.uniform(-12, 12, (each, 2))
    half = random.uniform(10, 40, (each, 2))
    scores = random.uniform(0.02, 0.9, (classes, each))
    return np.concatenate([middle - half, middle + half], 1).astype(np.float32), scores.astype(np.float32)


def uniform(*shape: int) -> Array:
    """For DropBlock."""
    return np.random.RandomState(4).random_sample(shape).astype(np.float32)


def moving(step: int) -> Array:
    """A weight (3, 2) in the course of training."""
    return draw("moving", 3, 2) + np.float32(step)


def gradients() -> tuple[Array, Array]:
    """Of a weight (6, 1) and of a norm (1,), of norms 40 and 30: 50 together."""
    weight = draw("gradient", 6, 1)
    return (weight * (40 / np.linalg.norm(weight))).astype(np.float32), np.array([30], np.float32)
