"""Images in files: reading them, and finding out which ones cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from portdet.data.records import Finding, Image, Record, Report
from portdet.errors import PortdetError


def read_image(path: Path) -> Image:
    """Decode a file to (H, W, 3) uint8, RGB.

    Pillow, because OpenCV returns a truncated JPEG half grey without a word. EXIF rotation is not applied: COCO's
    boxes are in the stored orientation. Raises PortdetError for whatever cannot be decoded in full.
    """
    try:
        with Pillow.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode} has more than 8 bits a channel")
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and their own kinds
        raise PortdetError(
            f"unreadable image: {error}", where=str(path), fix="replace the file, or set data.bad_image=skip"
        ) from error


@dataclass
class ImageFiles:
    """Source of images in a folder; masks, if any, are read from the COCO file when first asked for."""

    folder: Path
    annotations: Path | None = None
    _segments: dict[int, Any] = field(default_factory=dict, repr=False)

    def read(self, record: Record) -> Image:
        return read_image(self.folder / record.name)

    def segments(self, record: Record) -> list[Any]:
        if not self._segments and self.annotations:
            listed = json.loads(self.annotations.read_text(encoding="utf-8"))["annotations"]
            self._segments = {a["id"]: a["segmentation"] for a in listed if a.get("segmentation")}
        try:
            return [self._segments[int(i)] for i in record.annotation_ids]
        except KeyError as error:
            raise PortdetError(
                f"annotation {error} has no mask", where=record.name, fix="use a data set with segmentations"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "annotations": self.annotations, "_segments": {}}  # workers need no masks


def drop_unreadable(
    records: list[Record], read: Callable[[Record], Image], folder: Path, policy: str, report: Report
) -> list[Record]:
    """Under policy "error" check that every file is there; under "skip" decode every one and drop the bad, counted.

    Decoding takes 2-5 ms a photograph and happens once, before the first step, so that the list of images (hence
    order, batches and resume) does not depend on when a worker meets the bad file.
    """
    if policy == "error":
        missing = [r.name for r in records if not (folder / r.name).is_file()]
        if missing:
            raise PortdetError(
                f"{len(missing)} of {len(records)} images are missing, the first is {missing[0]}",
                where=str(folder),
                fix="check the image folder, or set data.bad_image=skip",
            )
        return records

    def readable(record: Record) -> bool:
        try:
            read(record)
        except PortdetError:
            return False
        return True

    with ThreadPoolExecutor() as pool:
        good = list(pool.map(readable, records))
    for record, ok in zip(records, good, strict=True):
        if not ok:
            report.count(Finding.BAD_IMAGE, record.name)
    if not any(good):
        raise PortdetError("no image can be read", where=str(folder), fix="check the image folder")
    return [r for r, ok in zip(records, good, strict=True) if ok]
