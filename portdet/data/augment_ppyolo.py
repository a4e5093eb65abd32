"""Training augmentation of PaddleDetection 2.4's PP-YOLO: mix, shift colours, expand, crop, flip, resize.

Chance first: `draw` gives plain numbers that know nothing of the images. `place` turns them into geometry, `move_boxes`
and `paint` apply it. Colours change pixel by pixel, so only what the crop leaves is ever computed; the result is that
of the original's steps in their order. All colour changes are affine and nothing is clipped between them, so they are
one matrix, applied once in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from portdet.config import AugmentConfig
from portdet.data.records import Image

Float = NDArray[np.float32]
Double = NDArray[np.float64]
Pixels = Image | Float

METHODS = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
LINEAR = 1
FILL = (123.675, 116.28, 103.53)  # ImageNet's mean, RGB
THRESHOLDS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
NO_CROP = len(THRESHOLDS)
CROP_SIDE, CROP_ASPECT = (0.3, 1.0), (0.5, 2.0)

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
AMOUNTS = ((0.5, 1.5), (0.5, 1.5), (0.5, 1.5), (-18.0, 18.0))  # the hue's is multiplied by pi, so it is any angle
LUMA = (0.299, 0.587, 0.114)
TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.321), (0.211, -0.523, 0.311))
FROM_YIQ = ((1.0, 0.956, 0.621), (1.0, -0.272, -0.647), (1.0, -1.107, 1.705))


class Draw(NamedTuple):
    """What chance decides for one image. Uniform numbers are in 0..1.

    share: of the first image in the mixture. changes (4,): the order of the colour changes; skip, amount (4,): uniform,
    by change. expand (4,): uniform: skip, ratio, left, top. thresholds (7,): the order in which IoUs are tried, NO_CROP
    among them. crops (6, tries, 4): uniform, by threshold: side, aspect ratio, top, left. flip: uniform.
    """

    share: float
    changes: NDArray[np.int64]
    skip: Double
    amount: Double
    expand: Double
    thresholds: NDArray[np.int64]
    crops: Double
    flip: float


def draw(config: AugmentConfig, rng: np.random.Generator) -> Draw:
    """All of an image's chance, the same numbers whatever comes of them."""
    return Draw(
        share=float(rng.beta(config.mixup_beta, config.mixup_beta)),
        changes=rng.permutation(4),
        skip=rng.random(4),
        amount=rng.random(4),
        expand=rng.random(4),
        thresholds=rng.permutation(NO_CROP + 1),
        crops=rng.random((NO_CROP, config.crop_tries, 4)),
        flip=rng.random(),
    )


class Place(NamedTuple):
    """The canvas (width, height), the image's corner on it, the crop x1 y1 x2 y2 of the canvas, and the mirroring."""

    canvas: tuple[int, int]
    corner: tuple[int, int]
    crop: tuple[int, int, int, int] | None
    flip: bool

    @property
    def window(self) -> tuple[int, int, int, int]:
        """What is left of the canvas."""
        return self.crop or (0, 0, *self.canvas)


def place(drawn: Draw, width: int, height: int, boxes: Float, config: AugmentConfig) -> Place:
    """Geometry of an image (width, height) with boxes (n, 4): canvas, crop, flip."""
    canvas, corner = _expand(drawn.expand, width, height, config)
    crop = _crop(drawn, *canvas, boxes + np.array(corner * 2, np.float32))
    return Place(canvas, corner, crop, drawn.flip < config.flip)


def _expand(uniform: Double, width: int, height: int, config: AugmentConfig) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size of the canvas, and the image's corner on it."""
    skip, side, left, top = uniform.tolist()
    ratio = 1 + (config.expand_ratio - 1) * side
    wide, high = int(width * ratio), int(height * ratio)
    if skip < 1 - config.expand or wide <= width or high <= height:
        return (width, height), (0, 0)
    return (wide, high), (int(left * (wide - width)), int(top * (high - height)))


def _crop(drawn: Draw, width: int, height: int, boxes: Float) -> tuple[int, int, int, int] | None:
    """The first window that one box overlaps by the threshold whose turn it is, and that holds a box's centre."""
    for number in drawn.thresholds.tolist():
        if number == NO_CROP or not len(boxes):
            break
        windows = crop_windows(drawn.crops[number], width, height)
        good = (overlaps(windows, boxes).max(1) >= THRESHOLDS[number]) & holds(windows, boxes).any(1)
        if good.any():
            x1, y1, x2, y2 = windows[int(good.argmax())].tolist()
            return x1, y1, x2, y2
    return None


def crop_windows(uniform: Double, width: int, height: int) -> NDArray[np.int64]:
    """Windows (n, 4) in an image, from n rows of uniform numbers: side, aspect ratio, top, left."""
    side = CROP_SIDE[0] + (CROP_SIDE[1] - CROP_SIDE[0]) * uniform[:, 0]
    low, high = np.maximum(CROP_ASPECT[0], side * side), np.minimum(CROP_ASPECT[1], 1 / (side * side))
    root = np.sqrt(low + (high - low) * uniform[:, 1])  # of the aspect ratio
    size = np.stack([width * (side * root), height * (side / root)], 1).astype(np.int64)
    corner = (uniform[:, [3, 2]] * (np.array([width, height]) - size)).astype(np.int64)
    return np.concatenate([corner, corner + size], 1)


def overlaps(windows: NDArray[np.int64], boxes: Float) -> Float:
    """IoU (windows, boxes)."""
    crops = windows.astype(np.float32)
    low = np.maximum(crops[:, None, :2], boxes[:, :2])
    high = np.minimum(crops[:, None, 2:], boxes[:, 2:])
    shared = np.prod(high - low, axis=2) * (low < high).all(2)
    areas = [np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (crops, boxes)]
    iou: Float = shared / (areas[0][:, None] + areas[1] - shared + np.float32(1e-10))
    return iou


def holds(windows: NDArray[np.int64], boxes: Float) -> NDArray[np.bool_]:
    """Whether a window has a box's centre and some of its area (windows, boxes)."""
    crops = windows.astype(np.float32)[:, None]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = (crops[..., :2] <= centres) & (centres < crops[..., 2:])
    area = np.maximum(crops[..., :2], boxes[:, :2]) < np.minimum(crops[..., 2:], boxes[:, 2:])
    held: NDArray[np.bool_] = (inside & area).all(2)
    return held


def move_boxes(boxes: Float, where: Place, size: int) -> tuple[Float, NDArray[np.int64]]:
    """Boxes (k, 4) in pixels of the input (size, size), and which of the image's (n, 4) they are.

    A crop keeps those whose centre is in it; without one all are kept.
    """
    moved = boxes + np.array(where.corner * 2, np.float32)
    kept = np.arange(len(boxes))
    if where.crop:
        kept = np.flatnonzero(holds(np.array([where.crop]), moved)[0])
        low, high = where.crop[:2] * 2, where.crop[2:] * 2
        moved = np.clip(moved[kept], low, high).astype(np.float32) - np.array(low, np.float32)
    x1, y1, x2, y2 = where.window
    if where.flip:
        moved[:, [0, 2]] = x2 - x1 - moved[:, [2, 0]]
    scale = np.array([size / (x2 - x1), size / (y2 - y1)] * 2, np.float32)
    return np.clip(moved * scale, 0, size), kept


def colours(drawn: Draw, config: AugmentConfig) -> Double | None:
    """The affine map (3, 4) of RGB in 0..255 that the colour changes are together; None if all are skipped."""
    changes = [change for change in drawn.changes.tolist() if drawn.skip[change] >= 1 - config.distort]
    total = np.eye(4)
    for change in changes:
        low, high = AMOUNTS[change]
        total = colour_change(change, low + (high - low) * float(drawn.amount[change])) @ total
    return total[:3] if changes else None


def colour_change(change: int, amount: float) -> Double:
    """One change as a matrix (4, 4) of R, G, B, 1. Brightness adds (a value of at most 1.5 of 255, as the original)."""
    matrix = np.eye(4)
    if change == BRIGHTNESS:
        matrix[:3, 3] = amount
    elif change == CONTRAST:
        matrix[:3, :3] *= amount
    elif change == SATURATION:
        matrix[:3, :3] = amount * np.eye(3) + (1 - amount) * np.array([LUMA] * 3)
    else:
        cos, sin = math.cos(amount * math.pi), math.sin(amount * math.pi)
        turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        matrix[:3, :3] = np.array(FROM_YIQ) @ turn @ np.array(TO_YIQ)
    return matrix


def paint(images: Sequence[Image], share: float, colour: Double | None, where: Place, size: int, method: int) -> Pixels:
    """The input (size, size, 3): one image, or two mixed of which the first has `share`, as `where` and `colour` say.

    uint8 unless a colour change or the canvas made it float32; the original rounds then, and only then, as it resizes.
    """
    left, top = where.corner
    x1, y1, x2, y2 = where.window
    inner = slice(max(y1 - top, 0), max(y2 - top, 0)), slice(max(x1 - left, 0), max(x2 - left, 0))
    part: Pixels = images[0][inner] if len(images) == 1 else mix(images[0][inner], images[1][inner], share)
    if not part.size:  # the centre of a hair-thin box can be rounded to the image's far edge, and its crop begin there
        return np.full((size, size, 3), FILL, np.float32)
    if where.flip:
        part = cv2.flip(part, 1)
    if colour is not None:
        part = cv2.transform(part.astype(np.float32), colour.astype(np.float32))
    if where.canvas != extent(*(image.shape[1::-1] for image in images)):
        part = _frame(part, where)
    return np.asarray(cv2.resize(part, (size, size), interpolation=METHODS[method]))


def mix(first: Image, second: Image, share: float) -> Image:
    """share * first + (1 - share) * second on a black canvas that holds both, truncated to uint8."""
    width, height = extent(first.shape[1::-1], second.shape[1::-1])
    out = np.zeros((height, width, 3), np.float32)
    for image, weight in ((first, share), (second, 1 - share)):
        out[: image.shape[0], : image.shape[1]] += np.multiply(image, np.float32(weight), dtype=np.float32)
    return out.astype(np.uint8)


def extent(*sizes: tuple[int, ...]) -> tuple[int, int]:
    """Width and height of the canvas that holds images of these (width, height), each at the left top corner."""
    return max(size[0] for size in sizes), max(size[1] for size in sizes)


def _frame(part: Pixels, where: Place) -> Float:
    """The visible part of the image with fill around it, up to the window."""
    x1, y1, _, y2 = where.window
    wide = where.window[2] - x1
    above, before = max(where.corner[1] - y1, 0), max(where.corner[0] - x1, 0)
    below, after = y2 - y1 - above - part.shape[0], wide - before - part.shape[1]
    if where.flip:
        before, after = after, before
    framed = cv2.copyMakeBorder(
        part.astype(np.float32, copy=False), above, below, before, after, cv2.BORDER_CONSTANT, value=FILL
    )
    return np.asarray(framed, np.float32)
