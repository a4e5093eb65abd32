"""Images in files: reading them, and finding out which ones cannot be read."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from portdet.data.coco_file import check_coco, load_json
from portdet.data.masks import MOST_PIXELS
from portdet.data.records import Finding, Image, Record, Report
from portdet.errors import PortdetError
from portdet.outside import shown

warnings.filterwarnings("ignore", category=Pillow.DecompressionBombWarning)  # from half of MOST_PIXELS on


@cache
def _formats() -> tuple[str, ...]:
    """What images come in. Pillow knows fifty formats; some of them, as EPS, start a program to be drawn."""
    Pillow.init()
    wanted = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
    return tuple(name for name in wanted if name in Pillow.OPEN)


@cache
def suffixes() -> frozenset[str]:
    """Of the files that `read_image` reads, in small letters: '.jpg', '.gif' and some forty more."""
    Pillow.init()
    return frozenset(suffix for suffix, name in Pillow.registered_extensions().items() if name in _formats())


@contextmanager
def opened(path: Path) -> Iterator[Pillow.Image]:
    """An image file, its header read and nothing decoded. A pipe, which would be waited for, is refused unopened.

    Raises what Pillow and the system raise, and ValueError for what is too large to be decoded.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("not a regular file")
    with Pillow.open(path, formats=_formats()) as image:
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"{image.width}x{image.height} pixels, at most {MOST_PIXELS} are decoded")
        yield image


def read_image(path: Path) -> Image:
    """Decode a file to (H, W, 3) uint8, RGB.

    Pillow, because OpenCV returns a truncated JPEG half grey without a word. EXIF rotation is not applied: COCO's
    boxes are in the stored orientation. Of an animation, or a file of pages, it is the first one. Raises PortdetError
    for whatever cannot be decoded in full.
    """
    try:
        with opened(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"mode {image.mode} has more than 8 bits a channel")
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and their own kinds
        raise PortdetError(
            f"unreadable image: {reason(error)}", where=str(path), fix="replace the file, or set data.bad_image=skip"
        ) from error


def several(path: Path) -> bool:
    """Whether an image file that can be read holds further frames or pages."""
    with opened(path) as image:
        return bool(getattr(image, "is_animated", False))


def reason(error: Exception) -> str:
    """What a decoder or the system says, without the path that stands before it anyway."""
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error))[:200]


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
            content = load_json(self.annotations)
            ids = [annotation.id for annotation in check_coco(content, self.annotations).annotations]
            listed = zip(ids, content["annotations"], strict=True)
            self._segments = {i: entry["segmentation"] for i, entry in listed if entry.get("segmentation")}
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
        missing = [r.name for r in records if not os.path.isfile(folder / r.name)]
        if missing:
            raise PortdetError(
                f"{len(missing)} of {len(records)} images are missing, the first is {shown(missing[0])}",
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
