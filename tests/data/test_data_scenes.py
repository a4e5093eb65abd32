"""Drawn scenes: the same everywhere, boxes that fit what is visible, difficulty as stated, quick."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco

from portdet.config import DataConfig
from portdet.data.records import Record
from portdet.data.scenes import OBJECTS, SCENE_NAMES, draw_scene, read_scenes
from tests.counts import Calls

CONFIG = DataConfig(train_count=60, val_count=30, scene_size=96)


def test_drawing_is_reproducible_to_the_bit() -> None:
    a, b = draw_scene(0, 7, "train"), draw_scene(0, 7, "train")
    for left, right in zip(vars(a).values(), vars(b).values(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_scenes_have_not_changed() -> None:
    """Published AP figures of the demonstration are for these pixels and boxes."""
    digest = hashlib.sha256()
    for index in range(10):
        for array in vars(draw_scene(0, index, "train")).values():
            digest.update(array.tobytes())
    assert digest.hexdigest()[:16] == "1b09bdf9dee69786"


def test_splits_seeds_and_indices_differ() -> None:
    drawn = [draw_scene(seed, index, split, 64) for seed in (0, 1) for split in ("train", "val") for index in range(20)]
    assert len({hashlib.sha256(scene.image.tobytes()).digest() for scene in drawn}) == 80


def test_scene_does_not_depend_on_the_count() -> None:
    few = read_scenes(DataConfig(train_count=5, scene_size=96), "train")
    many = read_scenes(CONFIG, "train")
    for a, b in zip(few.records, many.records, strict=False):
        np.testing.assert_array_equal(a.xywh, b.xywh)
        np.testing.assert_array_equal(few.read(a), many.read(b))


@pytest.mark.parametrize("split", ["train", "val"])
def test_boxes_bound_the_visible_masks(split: str) -> None:
    data = read_scenes(CONFIG, split)
    assert data.names == SCENE_NAMES
    for record in data.records:
        masks = data.masks(record)
        assert OBJECTS[0] <= len(masks) < OBJECTS[1]
        assert masks.sum(0).max() == 1  # what is hidden belongs to the shape in front only
        for mask, box, area in zip(masks, record.boxes, record.areas, strict=True):
            ys, xs = np.nonzero(mask)
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            assert mask.sum() == area


def test_masks_and_ground_truth_are_coco() -> None:
    data = read_scenes(CONFIG, "val")
    truth = data.coco_ground_truth(masks=True)
    assert len({a["id"] for a in truth["annotations"]}) == len(truth["annotations"])
    for annotation in truth["annotations"]:
        assert coco.area(annotation["segmentation"]) == annotation["area"]
        assert coco.toBbox(annotation["segmentation"]).tolist() == annotation["bbox"]


def filled(record: Record, i: int) -> float:
    """Share of its box that a shape fills."""
    return float(record.areas[i] / record.xywh[i, 2:].prod())


def test_shapes_are_what_their_names_say() -> None:
    """Share of its box that a whole shape fills: a ring pi/4 (1 - 0.45^2), an upright triangle 1/2, a square most.

    A turn widens the box of a triangle and a square; the ring's stays. Borders are drawn half a pixel outwards.
    """
    data = read_scenes(DataConfig(train_count=300), "train")
    shares: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for record in data.records:
        for i, label in enumerate(record.labels):
            if len(record.labels) == 1:
                shares[int(label)].append(filled(record, i))
    assert np.median(shares[0]) == pytest.approx(np.pi / 4 * (1 - 0.45**2), abs=0.04)
    assert 0.38 < np.median(shares[2]) < 0.55
    assert 0.7 < np.median(shares[1]) <= 1
    counts = np.bincount(np.concatenate([r.labels for r in data.records]))
    assert counts.min() > 0.8 * counts.mean()


def test_colour_does_not_tell_the_class() -> None:
    """Nearest class mean over mean colours does hardly better than one in three on unseen scenes."""

    def colours(split: str) -> tuple[NDArray[Any], NDArray[Any]]:
        data = read_scenes(DataConfig(train_count=200, val_count=200, scene_size=64), split)
        pairs = [
            (data.read(r)[mask].mean(0), label)
            for r in data.records
            for mask, label in zip(data.masks(r), r.labels, strict=True)
        ]
        return np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])

    x, y = colours("train")
    means = np.array([x[y == c].mean(0) for c in range(3)])
    x, y = colours("val")
    guess = ((x[:, None] - means) ** 2).sum(-1).argmin(1)
    assert (guess == y).mean() < 0.42


def test_drawing_costs_little() -> None:
    """540 calls a scene: no loop over its 10,000 pixels."""
    draw_scene(0, 0, "train")
    with Calls() as calls:
        for index in range(40):
            draw_scene(0, index, "train")
    assert calls.number < 2000 * 40
