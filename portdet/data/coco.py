"""COCO annotation files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from portdet.data.coco_file import CocoAnnotation, CocoFile, CocoImage, load_coco
from portdet.data.files import ImageFiles, drop_unreadable
from portdet.data.records import Dataset, Finding, Record, Report, clean, for_training
from portdet.errors import PortdetError
from portdet.outside import shown


def read_coco(
    annotations: Path,
    images: Path,
    *,
    train: bool,
    names: tuple[str, ...] = (),
    keep_crowd: bool = False,
    bad_box: str = "clip",
    bad_image: str = "error",
) -> Dataset:
    """Read a COCO detection or instance file; labels are the category ids in sorted order, from 0.

    Images come in the order of their ids. `names`, if given, must be the file's category names in that order.
    For training, crowd boxes (unless kept) and then images without a box over 1 px are dropped and counted.
    Raises PortdetError for a file that is not COCO (see `load_coco`) and as the policies say. Images may be links to
    other places: whoever made the folder decided that, and not the annotation file, whose names stay inside of it.
    """
    file = load_coco(annotations)
    report = Report()
    categories = sorted(file.categories, key=lambda category: category.id)
    found = tuple(category.name for category in categories)
    if names and names != found:
        raise PortdetError(
            f"data.names is {shown([*names])}, the categories by id are {shown([*found])}",
            where=str(annotations),
            fix="leave data.names empty for COCO files",
        )
    labels = {category.id: label for label, category in enumerate(categories)}
    records = [clean(r, bad_box, report) for r in _records(file, labels)]
    for record in records:
        report.count(Finding.CROWD, record.name, int(record.crowd.sum()))
        report.count(Finding.NO_BOXES, record.name, int(not len(record.labels)))
    if train:
        records = for_training(records, keep_crowd, report)
    dataset = Dataset(records, found, tuple(labels), ImageFiles(images, annotations), report)
    dataset.records = drop_unreadable(records, dataset.read, images, bad_image, report)
    return dataset


def _records(file: CocoFile, labels: dict[int, int]) -> list[Record]:
    by_image: dict[int, list[CocoAnnotation]] = {image.id: [] for image in file.images}
    for annotation in file.annotations:
        by_image[annotation.image_id].append(annotation)
    images = sorted(file.images, key=lambda image: image.id)
    return [_record(image, by_image[image.id], labels) for image in images]


def _record(image: CocoImage, annotations: list[CocoAnnotation], labels: dict[int, int]) -> Record:
    areas = [a.bbox[2] * a.bbox[3] if a.area is None else a.area for a in annotations]
    return Record(
        image_id=image.id,
        name=image.file_name,
        width=image.width,
        height=image.height,
        xywh=np.array([a.bbox for a in annotations], np.float64).reshape(-1, 4),
        labels=np.array([labels[a.category_id] for a in annotations], np.int32),
        crowd=np.array([a.iscrowd for a in annotations], bool),
        areas=np.array(areas, np.float64),
        annotation_ids=np.array([a.id for a in annotations], np.int64),
    )
