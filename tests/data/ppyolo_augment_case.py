"""Images, boxes and draws of the cases in `ppyolo_augment.npz`, from a generator whose stream numpy keeps for ever."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from portdet.data.augment_ppyolo import NO_CROP, Draw

FILE = Path(__file__).with_name("ppyolo_augment.npz")
COUNT, TRIES, SIDE, LIMIT = 40, 50, 20, 8
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = 7
EVAL_SIDE = 24


@dataclass(frozen=True)
class Case:
    """One image, or two that are mixed; `method` is the place of the interpolation in PaddleDetection's list."""

    images: list[NDArray[np.uint8]]
    boxes: list[NDArray[np.float32]]
    labels: list[NDArray[np.int32]]
    drawn: Draw
    method: int


def case(number: int) -> Case:
    """Two of three cases mix; in some of those the mixture is one image alone."""
    state = np.random.RandomState(number)
    images, boxes, labels = [], [], []
    for _ in range(2):
        height, width = state.randint(20, 56, 2).tolist()
        # patches of noise: both smooth and sharp for the interpolations, and of the whole range for the rounding
        coarse = state.randint(0, 256, (height // 4 + 1, width // 4 + 1, 3))
        noise = state.randint(-40, 40, (height, width, 3))
        image = np.clip(coarse.repeat(4, 0).repeat(4, 1)[:height, :width] + noise, 0, 255)
        count = state.randint(1, 5)
        corners = np.sort(state.random_sample((count, 2, 2)), axis=1) * [0.8 * width, 0.8 * height]
        corners[:, 1] += [0.2 * width, 0.2 * height]
        images.append(image.astype(np.uint8))
        boxes.append(corners.reshape(-1, 4).astype(np.float32))
        labels.append(state.randint(0, CLASSES, count).astype(np.int32))
    drawn = Draw(
        share=float({7: 1.0, 10: 0.0}.get(number, state.beta(1.5, 1.5))),
        changes=state.permutation(4),
        skip=state.random_sample(4),
        amount=state.random_sample(4),
        expand=state.random_sample(4),
        thresholds=state.permutation(NO_CROP + 1),
        crops=state.random_sample((NO_CROP, TRIES, 4)),
        flip=state.random_sample(),
    )
    mixed = number % 3
    return Case(images[: 1 + bool(mixed)], boxes[: 1 + bool(mixed)], labels[: 1 + bool(mixed)], drawn, number % 5)
