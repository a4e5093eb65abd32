"""Data: annotated images from files or drawn, augmentation, order, and the batches of training and validation."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from portdet.config import DataConfig
from portdet.data.coco import read_coco
from portdet.data.random import generator
from portdet.data.records import Dataset, Finding, Record, Report
from portdet.data.scenes import read_scenes
from portdet.data.voc import read_voc
from portdet.errors import PortdetError
from portdet.outside import shown

__all__ = ["Dataset", "Finding", "Record", "Report", "open_datasets"]


def open_datasets(config: DataConfig, seed: int = 0) -> tuple[Dataset, Dataset]:
    """The training and the validation set; their reports say what was dropped or corrected.

    `seed` chooses the images that `data.fraction` keeps. PortdetError if a file is missing or faulty, or if the two
    sets disagree about the classes.
    """
    train, val = open_dataset(config, "train"), open_dataset(config, "val")
    if (train.names, train.category_ids) != (val.names, val.category_ids):
        raise PortdetError(
            f"training and validation set have other classes: {shown(train.names)}, {shown(val.names)}",
            fix="give both files the same categories",
        )
    if config.fraction < 1:
        count = math.ceil(config.fraction * len(train))
        chosen = generator(seed, 0, 0, "fraction").permutation(len(train))[:count]
        train.report.count(Finding.FRACTION, number=len(train) - count)
        train = train.subset(sorted(chosen.tolist()))
    return train, val


def open_dataset(config: DataConfig, split: str) -> Dataset:
    """The data set of `split`, "train" or "val"; the latter is left whole."""
    if config.format == "scenes":
        return read_scenes(config, split)
    listed, images = (config.train, config.train_images) if split == "train" else (config.val, config.val_images)
    if not listed:
        raise PortdetError(f"data.{split} is empty", fix="set it to the annotation file (COCO) or image list (VOC)")
    root, names, to_train = Path(config.root), tuple(config.names), split == "train"
    read: Callable[..., Dataset] = read_voc
    place: tuple[Path | str, ...] = (root, listed)
    if config.format == "coco":
        read, place = read_coco, (root / listed, root / images)
    return read(
        *place,
        train=to_train,
        names=names,
        keep_crowd=config.keep_crowd,
        bad_box=config.bad_box,
        bad_image=config.bad_image,
    )
