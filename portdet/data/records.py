"""Annotated images: what every source is turned into, and a count of all that was found wrong on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from portdet.errors import PortdetError

Image = NDArray[np.uint8]
Boxes = NDArray[np.float64]

# COCO writes two decimals, so x + w may pass the border by their rounding; such a box is left as it is.
ROUNDING = 0.02


class Finding(StrEnum):
    """What reading a data set counts. The text is what the log shows."""

    CLIPPED = "boxes reached outside their image and were clipped"
    NO_AREA = "boxes without area were dropped"
    OUTSIDE = "boxes wholly outside their image were dropped"
    CROWD = "boxes are marked as crowd"
    DIFFICULT = "boxes are marked as difficult and count as crowd"
    CROWD_DROPPED = "crowd boxes are not trained on"
    NO_BOXES = "images have no box"
    NOT_TRAINED = "images have no box over 1 px and are not trained on"
    BAD_IMAGE = "unreadable images were skipped"
    SIZE_DIFFERS = "annotations give another size than their image; the image's is used"
    FRACTION = "images are left out by data.fraction"
    OVER_LIMIT = "boxes are over data.max_boxes, so that many are dropped at random in each epoch"
    MAY_BE_CUT = "images can come, mixed or alone, to more boxes than data.max_boxes; the last ones are dropped then"
    CUT = "boxes were over data.max_boxes and were dropped"
    LEFT_OVER = "images do not fill a last batch and are left out, other ones in each epoch"
    ALL_LOST = "training images had no box over 1 px at the size of the input"


class Report:
    """Counts by finding, each with the first places where it was met."""

    EXAMPLES = 5

    def __init__(self) -> None:
        self.counts: Counter[Finding] = Counter()
        self.places: dict[Finding, list[str]] = {}

    def count(self, finding: Finding, where: str = "", number: int = 1) -> None:
        """Add `number` (0 adds nothing) and remember `where` among the first few different places."""
        if number:
            self.counts[finding] += number
            places = self.places.setdefault(finding, [])
            if where and where not in places and len(places) < self.EXAMPLES:
                places.append(where)

    def add(self, other: Report) -> None:
        """Take over what another report, say of another process, has counted."""
        for finding, number in other.counts.items():
            self.count(finding, number=number)
            known = self.places[finding]
            known += [p for p in other.places[finding] if p not in known][: self.EXAMPLES - len(known)]

    def clear(self) -> None:
        """Forget everything."""
        self.counts.clear()
        self.places.clear()

    def __getitem__(self, finding: Finding) -> int:
        return self.counts[finding]

    def lines(self) -> list[str]:
        """One line a finding: `2 boxes without area were dropped (BloodImage_00338, BloodImage_00343)`."""
        out = []
        for finding, number in self.counts.items():
            places = self.places[finding]
            more = ", ..." if len(places) == self.EXAMPLES else ""
            out.append(f"{number} {finding}" + (f" ({', '.join(places)}{more})" if places else ""))
        return out


@dataclass(frozen=True, eq=False)  # arrays have no single truth value to compare by
class Record:
    """One image and its n annotations, in the image's own pixels.

    xywh (n, 4) float64: left, top, width, height as COCO writes them (continuous, origin at the corner of the first
    pixel); labels (n,) int32 from 0; crowd (n,) bool; areas (n,) float64 (of the mask where there is one);
    annotation_ids (n,) int64, the keys of COCO's annotations. `name` is the file below the image folder.
    """

    image_id: int
    name: str
    width: int
    height: int
    xywh: Boxes
    labels: NDArray[np.int32]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float64]
    annotation_ids: NDArray[np.int64]

    @property
    def boxes(self) -> NDArray[np.float32]:
        """(n, 4) float32: x1 y1 x2 y2."""
        low, high = self.xywh[:, :2], self.xywh[:, :2] + self.xywh[:, 2:]
        return np.asarray(np.concatenate([low, high], 1), np.float32)

    def keep(self, which: NDArray[np.bool_]) -> Record:
        """The record with the annotations of a mask (n,)."""
        if which.all():
            return self
        names = ("xywh", "labels", "crowd", "areas", "annotation_ids")
        return replace(self, **{name: getattr(self, name)[which] for name in names})


class Source(Protocol):
    """Where pixels and masks come from. It travels to the worker processes, so it must pickle."""

    def read(self, record: Record) -> Image:
        """The image (H, W, 3) uint8, RGB. Raises PortdetError naming the image if it cannot be read."""

    def segments(self, record: Record) -> list[Any]:
        """COCO segmentations (polygons or RLE) of the record's annotations. PortdetError if there are none."""


@dataclass
class Dataset:
    """Records with their class names, COCO's category id of each label, and what was counted while reading."""

    records: list[Record]
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    source: Source
    report: Report = field(default_factory=Report)

    def __len__(self) -> int:
        return len(self.records)

    def read(self, record: Record) -> Image:
        """The image (H, W, 3) uint8, RGB, of the size that the record states."""
        image = self.source.read(record)
        if image.shape != (record.height, record.width, 3):
            raise PortdetError(
                f"image is {image.shape[1]}x{image.shape[0]}, its annotation says {record.width}x{record.height}",
                where=record.name,
                fix="correct the annotation file, or the image's rotation (EXIF is not applied)",
            )
        return image

    def masks(self, record: Record) -> NDArray[np.bool_]:
        """Masks (n, H, W) bool of the record's annotations, decoded on demand."""
        from portdet.data.masks import decode

        out = np.zeros((len(record.labels), record.height, record.width), bool)
        for i, segment in enumerate(self.source.segments(record)):
            out[i] = decode(segment, record.height, record.width, record.name)
        return out

    def subset(self, indices: Sequence[int]) -> Dataset:
        """The same data set with some records, in the given order; the report is shared."""
        return replace(self, records=[self.records[i] for i in indices])

    def coco_ground_truth(self, *, masks: bool = False) -> dict[str, Any]:
        """A COCO annotation dictionary of the records, with the original ids, areas and crowd flags."""
        annotations = []
        for record in self.records:
            segments = self.source.segments(record) if masks else [None] * len(record.labels)
            for i, label in enumerate(record.labels):
                annotation = {
                    "id": int(record.annotation_ids[i]),
                    "image_id": record.image_id,
                    "category_id": self.category_ids[label],
                    "bbox": record.xywh[i].tolist(),
                    "area": float(record.areas[i]),
                    "iscrowd": int(record.crowd[i]),
                }
                annotations.append(annotation | ({"segmentation": segments[i]} if masks else {}))
        return {
            "images": [
                {"id": r.image_id, "file_name": r.name, "width": r.width, "height": r.height} for r in self.records
            ],
            "annotations": annotations,
            "categories": [{"id": i, "name": n} for i, n in zip(self.category_ids, self.names, strict=True)],
        }


def clean(record: Record, policy: str, report: Report) -> Record:
    """Clip boxes to the image and drop those without area, counted; under policy "error" raise instead."""
    if not len(record.labels):
        return record
    low, high = record.xywh[:, :2], record.xywh[:, :2] + record.xywh[:, 2:]
    border = np.array([record.width, record.height], np.float64)
    area = np.isfinite(record.xywh).all(1) & (record.xywh[:, 2:] > 0).all(1)
    beyond = area & ((low < -ROUNDING) | (high > border + ROUNDING)).any(1)
    if policy == "error" and not (area & ~beyond).all():
        _refuse(record, int(np.argmin(area & ~beyond)))
    inside_low, inside_high = np.clip(low, 0, border), np.clip(high, 0, border)
    outside = beyond & (inside_high <= inside_low).any(1)
    clipped = beyond & ~outside
    report.count(Finding.NO_AREA, record.name, int((~area).sum()))
    report.count(Finding.OUTSIDE, record.name, int(outside.sum()))
    report.count(Finding.CLIPPED, record.name, int(clipped.sum()))
    inside = np.concatenate([inside_low, inside_high - inside_low], 1)
    return replace(record, xywh=np.where(clipped[:, None], inside, record.xywh)).keep(area & ~outside)


def _refuse(record: Record, worst: int) -> None:
    x, y, w, h = record.xywh[worst].tolist()
    raise PortdetError(
        f"box {worst} (x {x:g}, y {y:g}, width {w:g}, height {h:g}) has no area or leaves the image "
        f"({record.width}x{record.height})",
        where=record.name,
        fix="correct the annotation, or set data.bad_box=clip",
    )


def for_training(records: list[Record], keep_crowd: bool, report: Report) -> list[Record]:
    """Drop crowd boxes (unless kept) and then the images that have no box with both sides over 1 px.

    mindspore-ai/models tests the sides before it drops crowd boxes, and stops later at an image that had no other.
    """
    kept = []
    for record in records:
        if not keep_crowd and record.crowd.any():
            report.count(Finding.CROWD_DROPPED, record.name, int(record.crowd.sum()))
            record = record.keep(~record.crowd)
        if (record.xywh[:, 2:] > 1).all(1).any():
            kept.append(record)
        else:
            report.count(Finding.NOT_TRAINED, record.name)
    if not kept:
        raise PortdetError("no image has a box to train on", fix="check data.train, and data.names if you set it")
    return kept
