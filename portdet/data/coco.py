"""COCO annotation files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from portdet.data.files import ImageFiles, drop_unreadable
from portdet.data.records import Dataset, Finding, Record, Report, clean, for_training
from portdet.errors import PortdetError


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
    Raises PortdetError for a file that is not COCO, for ids that point nowhere, and as the policies say.
    """
    content = _load(annotations)
    report = Report()
    categories = sorted(content["categories"], key=lambda c: int(c["id"]))
    found = tuple(str(c["name"]) for c in categories)
    if names and names != found:
        raise PortdetError(
            f"data.names is {list(names)}, the categories by id are {list(found)}",
            where=str(annotations),
            fix="leave data.names empty for COCO files",
        )
    labels = {int(c["id"]): i for i, c in enumerate(categories)}
    records = [clean(r, bad_box, report) for r in _records(content, labels, annotations)]
    for record in records:
        report.count(Finding.CROWD, record.name, int(record.crowd.sum()))
        report.count(Finding.NO_BOXES, record.name, int(not len(record.labels)))
    if train:
        records = for_training(records, keep_crowd, report)
    dataset = Dataset(records, found, tuple(labels), ImageFiles(images, annotations), report)
    dataset.records = drop_unreadable(records, dataset.read, images, bad_image, report)
    return dataset


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PortdetError(
            f"cannot read the annotation file: {error.strerror}", where=str(path), fix="check data.root and data.train"
        ) from None
    except ValueError as error:
        raise PortdetError(f"not valid JSON: {error}", where=str(path)) from None
    missing = {"images", "annotations", "categories"} - set(content if isinstance(content, dict) else ())
    if missing:
        raise PortdetError(f"no {sorted(missing)} in the file", where=str(path), fix="give a COCO instances file")
    return dict(content)


def _records(content: dict[str, Any], labels: dict[int, int], where: Path) -> list[Record]:
    by_image: dict[int, list[dict[str, Any]]] = {int(image["id"]): [] for image in content["images"]}
    if len(by_image) != len(content["images"]):
        raise PortdetError("two images have the same id", where=str(where))
    for annotation in content["annotations"]:
        if int(annotation["image_id"]) not in by_image:
            raise PortdetError(
                f"annotation {annotation['id']} names image {annotation['image_id']}, which is not listed",
                where=str(where),
            )
        if int(annotation["category_id"]) not in labels:
            raise PortdetError(
                f"annotation {annotation['id']} has category {annotation['category_id']}, which is not listed",
                where=str(where),
                fix=f"known categories: {sorted(labels)}",
            )
        by_image[int(annotation["image_id"])].append(annotation)
    images = sorted(content["images"], key=lambda image: int(image["id"]))
    return [_record(image, by_image[int(image["id"])], labels) for image in images]


def _record(image: dict[str, Any], annotations: list[dict[str, Any]], labels: dict[int, int]) -> Record:
    xywh = np.array([a["bbox"] for a in annotations], np.float64).reshape(-1, 4)
    areas = [a.get("area", a["bbox"][2] * a["bbox"][3]) for a in annotations]
    return Record(
        image_id=int(image["id"]),
        name=str(image["file_name"]),
        width=int(image["width"]),
        height=int(image["height"]),
        xywh=xywh,
        labels=np.array([labels[int(a["category_id"])] for a in annotations], np.int32),
        crowd=np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool),
        areas=np.array(areas, np.float64),
        annotation_ids=np.array([a["id"] for a in annotations], np.int64),
    )
