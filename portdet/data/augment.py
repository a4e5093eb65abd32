"""Training augmentation of mindspore-ai/models' YOLOv3: place, crop or shrink, flip, shift colours.

All chance comes from the generator that is passed in. The steps, their order and constants are those of the
original; its streams (numpy's and Python's global ones) are not reproduced, since they depend on the worker.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from portdet.config import AugmentConfig
from portdet.data.records import Image
from portdet.data.transforms import BILINEAR, GREY, METHODS, resize

Boxes = NDArray[np.float32]


class Place(NamedTuple):
    """Where the whole image goes, in pixels of the input; parts outside are cropped, what it leaves is grey."""

    left: int
    top: int
    width: int
    height: int


class Augmented(NamedTuple):
    """An image (size, size, 3) uint8, the boxes (k, 4) left in it, and their positions (k,) in the original's."""

    image: Image
    boxes: Boxes
    kept: NDArray[np.int64]


def augment(
    image: Image, boxes: Boxes, size: int, config: AugmentConfig, max_boxes: int, rng: np.random.Generator
) -> Augmented:
    """One draw of everything. Boxes come out shuffled; those not over 1 px on both sides are dropped.

    More than `max_boxes` are cut after the shuffle. Where even the plain resize leaves no box, the original stops;
    here the image comes without boxes.
    """
    height, width = image.shape[:2]
    order = rng.permutation(len(boxes))[:max_boxes]
    flip = bool(rng.random() < config.flip)
    places = draw_places(size, config, rng)
    while True:
        # The image as it is (the first) is taken only when no other place is left.
        place = places.pop(int(rng.integers(1, len(places))) if len(places) > 1 else 0)
        placed = place_boxes(boxes[order], place, width, height, size, flip=flip)
        wide = over_one_pixel(placed)
        if wide.any() or not places:
            break
    method = int(rng.integers(len(METHODS))) if config.random_interpolation else BILINEAR
    canvas = paste(resize(image, place.width, place.height, method), place, size)
    if flip:
        canvas = canvas[:, ::-1]
    return Augmented(shift_colours(canvas, *draw_colours(config, rng)), placed[wide], order[wide])


def draw_places(size: int, config: AugmentConfig, rng: np.random.Generator) -> list[Place]:
    """The plain resize, then `config.trials` random places.

    The aspect ratio is drawn around that of the (square) input, so the image's own is lost.
    """
    places = [Place(0, 0, size, size)]
    for _ in range(config.trials):
        low, high = 1 - config.jitter, 1 + config.jitter
        aspect = rng.uniform(low, high) / rng.uniform(low, high)
        side = rng.uniform(*config.scale) * size
        if aspect < 1:
            height = int(side)
            width = int(height * aspect)
        else:
            width = int(side)
            height = int(width / aspect)
        # Where the image is larger than the input the range is negative: a crop.
        left, top = int(rng.random() * (size - width)), int(rng.random() * (size - height))
        places.append(Place(left, top, max(width, 1), max(height, 1)))
    return places


def place_boxes(boxes: Boxes, place: Place, width: int, height: int, size: int, *, flip: bool) -> Boxes:
    """Boxes of the original (width, height), placed, flipped and clipped to the input; some may become empty."""
    scale = np.array([place.width / width, place.height / height] * 2, np.float32)
    out: Boxes = boxes * scale + np.array([place.left, place.top] * 2, np.float32)
    if flip:
        out[:, [0, 2]] = size - out[:, [2, 0]]
    return np.clip(out, 0, size)


def over_one_pixel(boxes: NDArray[Any]) -> NDArray[np.bool_]:
    """Which boxes (n, 4) have both sides over 1 px."""
    over: NDArray[np.bool_] = (boxes[:, 2:] - boxes[:, :2] > 1).all(1)
    return over


def paste(image: Image, place: Place, size: int) -> Image:
    """The resized image at its place on grey (size, size)."""
    out = np.full((size, size, 3), GREY, np.uint8)
    x, y = max(place.left, 0), max(place.top, 0)
    part = image[y - place.top :, x - place.left :][: size - y, : size - x]
    out[y : y + part.shape[0], x : x + part.shape[1]] = part
    return out


def draw_colours(config: AugmentConfig, rng: np.random.Generator) -> tuple[float, float, float]:
    """Shift of the hue as a share of the circle, factor of the saturation, factor of the value."""
    hue = rng.uniform(-config.hue, config.hue)
    factors = []
    for largest in (config.saturation, config.value):
        grow = rng.random() < 0.5
        factor = rng.uniform(1, largest)
        factors.append(factor if grow else 1 / factor)
    return hue, factors[0], factors[1]


def shift_colours(image: Image, hue: float, saturation: float, value: float) -> Image:
    """Shift in HSV, full-range uint8 (hue 0..255 is the circle), cut to 0..1 and truncated to uint8 as the original.

    Each channel changes by itself, so a table of 256 values does what the original computes for each pixel.
    """
    levels = np.arange(256) / 255.0
    turned = levels + hue
    turned = np.where(turned > 1, turned - 1, np.where(turned < 0, turned + 1, turned))
    tables = np.stack([turned, levels * saturation, levels * value], 1)
    tables = (np.clip(tables, 0, 1) * 255).astype(np.uint8)
    hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV_FULL)
    return np.asarray(cv2.cvtColor(cv2.LUT(hsv, tables[None]), cv2.COLOR_HSV2RGB_FULL), np.uint8)
