"""Pascal VOC: `Annotations/*.xml`, `ImageSets/Main/*.txt`, `JPEGImages/`.

VOC counts pixels from 1 and includes the last one, so xmin..xmax becomes x1 = xmin - 1, x2 = xmax in COCO's
continuous coordinates: a box of 2..4 covers three pixels and is three wide. One exception: xmax <= xmin (or ymax <=
ymin) is taken as a box without area, not as one pixel, because annotation tools write it for a click without a drag.

An object marked `difficult` is neither to be found nor to be missed in VOC's metric; COCO's only flag with that
meaning is `iscrowd`. So difficult becomes crowd (counted): not trained on unless `data.keep_crowd`, ignored by AP.
"""

from __future__ import annotations

import json
import math
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from portdet.data.files import ImageFiles, drop_unreadable, opened, reason
from portdet.data.records import Dataset, Finding, Record, Report, clean, for_training
from portdet.errors import PortdetError, nearest
from portdet.outside import DEEPEST, LONGEST_NAME, below, plain, read_bytes, read_text, shown

MOST_LIST, MOST_XML = 1 << 28, 1 << 24  # bytes of a list and of an image's annotation
FARTHEST = 1e6  # pixels from the image's corner
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".JPG", ".JPEG", ".PNG")


def read_voc(
    root: Path,
    split: str,
    *,
    train: bool,
    names: tuple[str, ...] = (),
    keep_crowd: bool = False,
    bad_box: str = "clip",
    bad_image: str = "error",
) -> Dataset:
    """Read the images that the list `split` (a path below `root`) names.

    Image ids are positions in the list, category ids those in `names`, both from 1. Without `names` they are the
    sorted names of all files in `Annotations`, so that every split of a data set agrees. Policies as in `read_coco`.
    """
    report = Report()
    names = names or find_names(root)
    folder = root / "JPEGImages"
    dataset = Dataset([], names, tuple(range(1, len(names) + 1)), ImageFiles(folder), report)
    next_id = 1
    for image_id, stem in enumerate(_split(root / split), 1):
        dataset.records.append(_record(root, stem, image_id, next_id, names, bad_image, report))
        next_id += len(dataset.records[-1].labels)
    # Before the boxes are looked at: the size of a missing image may be unknown.
    dataset.records = drop_unreadable(dataset.records, dataset.read, folder, bad_image, report)
    dataset.records = [clean(record, bad_box, report) for record in dataset.records]
    for record in dataset.records:
        report.count(Finding.DIFFICULT, record.name, int(record.crowd.sum()))
        report.count(Finding.NO_BOXES, record.name, int(not len(record.labels)))
    if train:
        dataset.records = for_training(dataset.records, keep_crowd, report)
    return dataset


def convert_voc(
    root: Path,
    split: str,
    out: Path,
    *,
    names: tuple[str, ...] = (),
    bad_box: str = "clip",
    bad_image: str = "error",
) -> Report:
    """Write one split as a COCO file (image folder: `JPEGImages`), under a temporary name until it is complete."""
    dataset = read_voc(root, split, train=False, names=names, bad_box=bad_box, bad_image=bad_image)
    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(dataset.coco_ground_truth()), encoding="utf-8")
        partial.replace(out)
    except OSError as error:
        raise PortdetError(
            f"cannot write: {error.strerror}", where=str(out), fix="check the folder and the disk"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    return dataset.report


def find_names(root: Path) -> tuple[str, ...]:
    """All class names that occur in `Annotations`, sorted."""
    files = sorted((root / "Annotations").glob("*.xml"))
    if not files:
        raise PortdetError("no Annotations/*.xml", where=str(root), fix="give the folder that holds Annotations/")
    found = sorted({_text(o, "name", f) for f in files for o in _parse(f).findall("object")}, key=str)
    if long := [name for name in found if len(name) > LONGEST_NAME]:
        raise PortdetError(
            f"a class name has {len(long[0])} characters", where=str(root), fix="correct the annotations"
        )
    return tuple(found)


def splits(root: Path) -> list[str]:
    """The lists below `ImageSets/Main` that name images (not the per-class ones, `cat_train.txt`)."""
    lists = sorted((root / "ImageSets" / "Main").glob("*.txt"))
    return [f"ImageSets/Main/{path.name}" for path in lists if "_" not in path.stem]


def files_of(root: Path) -> dict[str, Path]:
    """Every file of the data set, for `files.distinct`."""
    folders = (root / name for name in ("Annotations", "JPEGImages", "ImageSets/Main"))
    paths = (path for folder in folders if folder.is_dir() for path in folder.iterdir())
    return {plain(str(path.relative_to(root))): path for path in paths}


def _split(path: Path) -> Sequence[str]:
    try:
        lines = read_text(path, most=MOST_LIST).splitlines()
    except PortdetError as error:
        raise PortdetError(f"the list of images {error.what}", where=error.where, fix=_known_splits(path)) from None
    stems = [line.split()[0] for line in lines if line.strip()]
    if not stems:
        raise PortdetError("the list names no image", where=str(path))
    for stem in stems:
        below(path, f"{stem}.xml", "the entry", "name files below Annotations/ without their suffix")
    return stems


def _known_splits(path: Path) -> str:
    known = [other.name for other in path.parent.glob("*.txt")]
    return nearest(path.name, known) if known else "data.train and data.val are lists such as ImageSets/Main/train.txt"


class _Tree(ElementTree.TreeBuilder):
    """Refuses a document type, whose entities may be 10^9 characters or other files, and deep nesting."""

    def __init__(self) -> None:
        super().__init__()
        self._deep = 0

    def doctype(self, *_: Any) -> None:
        raise ValueError("a document type is not taken")

    def start(self, tag: Any, attrs: Any) -> ElementTree.Element:
        self._deep += 1
        if self._deep > DEEPEST:
            raise ValueError(f"elements are nested more than {DEEPEST} levels")
        return super().start(tag, attrs)

    def end(self, tag: Any) -> ElementTree.Element:
        self._deep -= 1
        return super().end(tag)


def _parse(path: Path) -> ElementTree.Element:
    parser = ElementTree.XMLParser(target=_Tree())
    try:
        parser.feed(read_bytes(path, most=MOST_XML))
        root: ElementTree.Element = parser.close()
        return root
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an encoding that nobody knows
        raise PortdetError(
            f"not valid XML: {plain(str(error)[:200])}", where=str(path), fix="correct the annotation"
        ) from None


def _text(element: ElementTree.Element, key: str, where: Path) -> str:
    text = (element.findtext(key) or "").strip()
    if not text:
        raise PortdetError(f"<{element.tag}> has no <{key}>", where=str(where), fix="correct the annotation")
    return text


def _number(element: ElementTree.Element, key: str, where: Path) -> float:
    text = _text(element, key, where)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= FARTHEST:
        raise PortdetError(
            f"<{key}> is {shown(text, 60)}, not a number of pixels", where=str(where), fix="correct the annotation"
        )
    return value


def _record(
    root: Path, stem: str, image_id: int, first_id: int, names: tuple[str, ...], bad_image: str, report: Report
) -> Record:
    path = root / "Annotations" / f"{stem}.xml"
    xml = _parse(path)
    objects = xml.findall("object")
    xywh = np.array([_xywh(o, path) for o in objects], np.float64).reshape(-1, 4)
    name = _image_name(root / "JPEGImages", stem, xml)
    width, height = _size(root / "JPEGImages" / name, xml, path, stem, bad_image, report)
    return Record(
        image_id=image_id,
        name=name,
        width=width,
        height=height,
        xywh=xywh,
        labels=np.array([_label(_text(o, "name", path), names, path) for o in objects], np.int32),
        crowd=np.array([(o.findtext("difficult") or "0").strip() == "1" for o in objects], bool),
        areas=xywh[:, 2] * xywh[:, 3],
        annotation_ids=np.arange(first_id, first_id + len(objects), dtype=np.int64),
    )


def _xywh(element: ElementTree.Element, where: Path) -> tuple[float, float, float, float]:
    box = element.find("bndbox")
    if box is None:
        raise PortdetError("<object> has no <bndbox>", where=str(where))
    x1, y1, x2, y2 = (_number(box, key, where) for key in ("xmin", "ymin", "xmax", "ymax"))
    if x2 <= x1 or y2 <= y1:
        return x1 - 1, y1 - 1, 0.0, 0.0
    return x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1


def _label(name: str, names: tuple[str, ...], where: Path) -> int:
    if name not in names:
        raise PortdetError(f"unknown class {shown(name)}", where=str(where), fix=f"data.names: {nearest(name, names)}")
    return names.index(name)


def _image_name(folder: Path, stem: str, xml: ElementTree.Element) -> str:
    """<filename> where that file exists in the folder, else the stem with a usual suffix.

    Some tools leave the suffix out, others write the path on the machine that the image was labelled on.
    """
    candidates = [xml.findtext("filename") or stem, *(stem + suffix for suffix in SUFFIXES)]
    return next((name for name in candidates if _inside(folder, name)), f"{stem}.jpg")


def _inside(folder: Path, name: str) -> bool:
    try:
        return os.path.isfile(below(folder, name, "<filename>"))
    except PortdetError:
        return False


def _size(
    image: Path, xml: ElementTree.Element, where: Path, stem: str, bad_image: str, report: Report
) -> tuple[int, int]:
    """Size from the image's header; the XML's (tools write 0 or a swapped one) only if the image is not there."""
    size = xml.find("size")
    stated = (0, 0) if size is None else (int(_number(size, "width", where)), int(_number(size, "height", where)))
    try:
        with opened(image) as header:
            actual = header.size
    except Exception as error:  # as in read_image
        if bad_image == "error" and os.path.isfile(image):
            raise PortdetError(
                f"unreadable image: {reason(error)}",
                where=str(image),
                fix="replace the file, or set data.bad_image=skip",
            ) from None
        return stated
    report.count(Finding.SIZE_DIFFERS, stem, int(actual != stated))
    return actual
