"""What a COCO annotation file must hold, checked in one pass before anything is made of it.

Keys that a detector does not read are ignored, so LVIS, Objects365 and files with captions or keypoints pass. Numbers
that programs write as 7.0 are taken for 7; text is not taken for a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, FailFast, Field, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from portdet.errors import PortdetError
from portdet.outside import LONGEST_NAME, below, checked, is_text, parse_json, plain, read_text, shown

MOST_BYTES = 1 << 32  # COCO's train2017 has 450 MB, LVIS's and Objects365's 1.1 GB
_ID = 2**63
_SIDE = 1_000_000  # pixels; what is decoded has its own bound
ADVICE = (
    "give a COCO instances file: images have id, file_name, width, height, annotations id, image_id, category_id, "
    "bbox (x, y, width, height), categories id, name; ids are numbers"
)


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`, which a file may write with a point: 7.0."""

    low: int
    high: int

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        number = partial(core_schema.int_schema, strict=True, ge=self.low, le=self.high)
        point = core_schema.no_info_after_validator_function(_whole, core_schema.float_schema(strict=True))
        say = f"no whole number from {self.low} to {self.high}" if self.high < _ID - 1 else "no whole number of 63 bits"
        return core_schema.union_schema(
            [number(), core_schema.chain_schema([point, number()])],
            mode="left_to_right",
            custom_error_type="whole_number",
            custom_error_message=say,
        )


def _whole(value: float) -> int:
    if not abs(value) <= 2**53 or value != int(value):  # beyond it a float is no one whole number
        raise ValueError("no whole number")
    return int(value)


class Flag:
    """0, 1, true or false."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.union_schema(
            [core_schema.bool_schema(strict=True), Whole(0, 1).__get_pydantic_core_schema__(source, handler)],
            mode="left_to_right",
            custom_error_type="flag",
            custom_error_message="neither 0 nor 1",
        )


def _name(name: Any) -> str:
    """A class name; some files have numbers there."""
    text = str(name) if type(name) is int else name
    if type(text) is not str or not 0 < len(text) <= LONGEST_NAME or not is_text(text):
        raise ValueError(f"no name of 1 to {LONGEST_NAME} characters")
    return text


Id = Annotated[int, Whole(-_ID, _ID - 1)]
Pixels = Annotated[int, Whole(1, _SIDE)]
Number = Annotated[float, Field(strict=True)]  # bbox: a box that is not finite is a box without area, and counted
ClassName = Annotated[str, BeforeValidator(_name)]


@dataclass(slots=True)
class CocoImage:
    """One entry of `images`."""

    id: Id
    file_name: Annotated[str, Field(strict=True, max_length=4000)]
    width: Pixels
    height: Pixels


@dataclass(slots=True)
class CocoAnnotation:
    """One entry of `annotations`; where area is left out, it is the box's."""

    id: Id
    image_id: Id
    category_id: Id
    bbox: tuple[Number, Number, Number, Number]
    area: Annotated[float, Field(strict=True, allow_inf_nan=False)] | None = None
    iscrowd: Annotated[int, Flag()] = 0


@dataclass(slots=True)
class CocoCategory:
    """One entry of `categories`."""

    id: Id
    name: ClassName


@dataclass(slots=True)
class CocoFile:
    """The three lists that a detector needs."""

    images: Annotated[list[CocoImage], FailFast()]
    annotations: Annotated[list[CocoAnnotation], FailFast()]
    categories: Annotated[list[CocoCategory], FailFast()]


_FILE = TypeAdapter(CocoFile)


def load_json(path: Path) -> dict[str, Any]:
    """The file's lists as they are, for what only some callers read."""
    where = plain(str(path))
    # NaN is no JSON, but what Python's json writes for a box that it cannot compute
    content = parse_json(
        read_text(path, most=MOST_BYTES, fix="check data.root and data.train"), where, nan=True, deep=True
    )
    missing = {"images", "annotations", "categories"} - set(content if isinstance(content, dict) else ())
    if missing:
        raise PortdetError(f"no {sorted(missing)} in the file", where=where, fix="give a COCO instances file")
    return dict(content)


def load_coco(path: Path) -> CocoFile:
    """The file, checked: types and ranges, ids and names that occur once, ids that are listed, names inside a folder.

    Raises PortdetError that names the first entry which is wrong, by its place in the list.
    """
    return check_coco(load_json(path), path)


def check_coco(content: dict[str, Any], path: Path) -> CocoFile:
    """See `load_coco`."""
    where = plain(str(path))
    file = checked(_FILE, content, where, ADVICE)
    for what, entries in (("images", file.images), ("annotations", file.annotations), ("categories", file.categories)):
        _once([entry.id for entry in entries], f"two {what} have the same id", where)
    _once([category.name for category in file.categories], "two categories have the same name", where)
    for what, entries in (("images", file.images), ("categories", file.categories)):
        if not entries:
            raise PortdetError(f"the file lists no {what}", where=where, fix=ADVICE)
    for image in file.images:
        below(path.parent, image.file_name, f"image {image.id}: file_name", "name files inside data.train_images")
    images, categories = {image.id for image in file.images}, {category.id for category in file.categories}
    for a in file.annotations:
        if a.image_id not in images:
            raise PortdetError(f"annotation {a.id} names image {a.image_id}, which is not listed", where=where)
        if a.category_id not in categories:
            raise PortdetError(
                f"annotation {a.id} has category {a.category_id}, which is not listed",
                where=where,
                fix=f"known categories: {shown(sorted(categories))}",
            )
    return file


def _once(values: Sequence[int | str], what: str, where: str) -> None:
    seen = set[int | str]()
    for value in values if len(set(values)) < len(values) else ():
        if value in seen:
            raise PortdetError(f"{what}, {shown(value)}", where=where, fix="give each its own")
        seen.add(value)
