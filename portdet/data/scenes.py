"""Drawn scenes: rings, squares and triangles among clutter, with exact boxes and masks of what is visible.

Made to be learnt slowly: colour says nothing about the class, shapes are turned, squeezed, and partly hidden by others,
the background has blotches, lines and pebbles of the same colours, and all is under noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from portdet.config import DataConfig
from portdet.data.random import generator
from portdet.data.records import Dataset, Image, Record

SCENE_NAMES = ("ring", "square", "triangle")
Mask = NDArray[np.bool_]
Rng = np.random.Generator

OBJECTS = (1, 5)  # least, and most + 1
SIZES = (0.2, 0.5)  # longer axis of an object, as a share of the side of the image
TILT = 0.35  # most that an object is turned, in radians
HOLE = 0.45  # radius of the hole of a ring
VISIBLE = 0.7  # least share of a shape that others and the border leave uncovered
CONTRAST = 70  # least distance from the background's mean in one of the colour channels
CACHE_BYTES = 256 << 20  # drawn images are kept while a split stays below this


@dataclass(frozen=True)
class Scene:
    """An image (S, S, 3) uint8, its n masks (n, S, S) and labels (n,)."""

    image: Image
    masks: Mask
    labels: NDArray[np.int32]


def read_scenes(config: DataConfig, split: str, seed: int = 0) -> Dataset:
    """The drawn data set of `split` ("train" or "val"). It does not change with the seed of the training.

    The splits draw from different streams, so no image is in both; image i is the same whatever the count.
    """
    count = config.train_count if split == "train" else config.val_count
    source = SceneSource(seed, split, config.scene_size, keep=count * config.scene_size**2 * 3 <= CACHE_BYTES)
    records, next_id = [], 1
    for index in range(count):
        record = _record(source.scene(index), index, next_id)
        next_id += len(record.labels)
        records.append(record)
    return Dataset(records, SCENE_NAMES, tuple(range(1, len(SCENE_NAMES) + 1)), source)


@dataclass
class SceneSource:
    """Draws a record's scene when asked; images are kept in memory, but do not travel to worker processes."""

    seed: int
    split: str
    size: int
    keep: bool = True
    _images: dict[int, Image] = field(default_factory=dict, repr=False)

    def scene(self, index: int) -> Scene:
        scene = draw_scene(self.seed, index, self.split, self.size)
        if self.keep:
            self._images[index] = scene.image
        return scene

    def read(self, record: Record) -> Image:
        index = record.image_id - 1
        image = self._images.get(index)
        return self.scene(index).image if image is None else image

    def segments(self, record: Record) -> list[Any]:
        from pycocotools import mask as coco

        masks = draw_scene(self.seed, record.image_id - 1, self.split, self.size).masks
        rles = [coco.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
        return [{"size": rle["size"], "counts": rle["counts"].decode("ascii")} for rle in rles]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_images": {}}


def _record(scene: Scene, index: int, next_id: int) -> Record:
    size = scene.image.shape[0]
    return Record(
        image_id=index + 1,
        name=f"scene {index}",
        width=size,
        height=size,
        xywh=np.array([_bounds(mask) for mask in scene.masks], np.float64).reshape(-1, 4),
        labels=scene.labels,
        crowd=np.zeros(len(scene.labels), bool),
        areas=scene.masks.sum((1, 2)).astype(np.float64),
        annotation_ids=np.arange(next_id, next_id + len(scene.labels), dtype=np.int64),
    )


def _bounds(mask: Mask) -> tuple[int, int, int, int]:
    """x, y, width, height of the pixels that are set."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return x, y, width, height


def draw_scene(seed: int, index: int, split: str, size: int = 128) -> Scene:
    """Scene `index` of a split, about 1 ms at 128 px. Rasterised in integers, the same on every machine."""
    rng = generator(seed, 0, index, "scenes", split)
    image = _background(size, rng)
    _pebbles(image, rng)
    _lines(image, rng, int(rng.integers(2, 6)), thickness=max(size // 64, 1))
    masks: list[Mask] = []
    areas: list[float] = []  # of the whole shapes
    labels: list[int] = []
    wanted = int(rng.integers(*OBJECTS))
    for _ in range(8 * wanted):
        if len(masks) == wanted:
            break
        label = int(rng.integers(len(SCENE_NAMES)))
        shape, area = _shape(label, size, rng)
        covered = [mask & ~shape for mask in masks]
        if all(m.sum() >= VISIBLE * a for m, a in zip([*covered, shape], [*areas, area], strict=True)):
            masks, areas, labels = [*covered, shape], [*areas, area], [*labels, label]
            _fill(image, shape, rng)
    _lines(image, rng, int(rng.integers(0, 3)), thickness=1)
    return Scene(_noise(image, rng), np.array(masks, bool).reshape(-1, size, size), np.array(labels, np.int32))


def _colour(rng: Rng) -> tuple[int, ...]:
    return tuple(int(v) for v in rng.integers(0, 256, 3))


def _background(size: int, rng: Rng) -> Image:
    """Blotches of two scales around one colour."""
    image = np.full((size, size, 3), rng.integers(60, 196, 3), np.uint8)
    for cells, strength in ((4, 50), (16, 24)):
        blotches = rng.integers(0, strength, (cells, cells, 3), np.uint8)
        smooth = cv2.resize(blotches, (size, size), interpolation=cv2.INTER_LINEAR_EXACT)
        image = cv2.subtract(cv2.add(image, smooth), np.full_like(image, strength // 2))
    return image


def _pebbles(image: Image, rng: Rng) -> None:
    size = image.shape[0]
    for _ in range(int(rng.integers(0, 6))):
        x, y = (int(v) for v in rng.integers(0, size, 2))
        axes = tuple(int(v) for v in rng.integers(1, max(size // 32, 2), 2))
        cv2.ellipse(image, (x, y), axes, int(rng.integers(180)), 0, 360, _colour(rng), -1)


def _lines(image: Image, rng: Rng, count: int, thickness: int) -> None:
    for _ in range(count):
        x1, y1, x2, y2 = (int(v) for v in rng.integers(0, image.shape[0], 4))
        cv2.line(image, (x1, y1), (x2, y2), _colour(rng), thickness)


def _shape(label: int, size: int, rng: Rng) -> tuple[Mask, float]:
    """A turned and squeezed shape (S, S), partly outside perhaps, and the area of the whole of it."""
    low, high = SIZES
    half = 0.5 * size * low * (high / low) ** rng.random()  # small ones as often as large ones
    half_y = half * rng.uniform(0.8, 1.0)
    x, y = rng.uniform(0.5 * half, size - 0.5 * half, 2)
    corners = (24, 4, 3)[label]
    angles = 2 * np.pi * (np.arange(corners) / corners + (0.125 if corners == 4 else -0.25))  # a triangle points up
    unit = np.stack([np.cos(angles), np.sin(angles)], 1) * (1.2 if corners == 4 else 1.0)  # square: 2.9 against pi
    turn = rng.uniform(-TILT, TILT)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    outline = (unit * (half, half_y)) @ rotation
    contours = [outline, outline * HOLE] if label == 0 else [outline]  # even-odd filling: the second is a hole
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.rint(16 * (c + np.array([x, y]))).astype(np.int32) for c in contours], 1, shift=4)
    areas = [cv2.contourArea(c.astype(np.float32)) for c in contours]
    return mask.astype(bool), areas[0] - sum(areas[1:])


def _fill(image: Image, shape: Mask, rng: Rng) -> None:
    """Paint the shape in a colour that stands off from what it covers, some with a rim."""
    behind = image[shape].mean(0)
    colour = rng.integers(0, 256, 3)
    while np.abs(colour - behind).max() < CONTRAST:
        colour = rng.integers(0, 256, 3)
    image[shape] = colour
    if rng.random() < 0.4:
        outline, _ = cv2.findContours(shape.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        rim = np.zeros(shape.shape, np.uint8)
        cv2.drawContours(rim, outline, -1, 1, 1)
        image[rim.astype(bool) & shape] = rng.integers(0, 256, 3)


def _noise(image: Image, rng: Rng) -> Image:
    grain = rng.integers(0, 33, image.shape, np.uint8)
    return np.asarray(cv2.subtract(cv2.add(image, grain), np.full_like(image, 16)), np.uint8)
