"""The models that conversion knows: what their tensors are, and what each program calls them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from portdet_convert import ppyolo, ppyolo_model, rules, yolov3
from portdet_convert.files.source import Arrays
from portdet_convert.rules import Naming, Renamed, UnknownModel

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Known:
    """A model of `portdet.models` by its name there, and for a person.

    namings: whose names are recognised. programs: whose names a file can be written in.
    expected: canonical names, in the network's order, of the model that has the given ones, or of its backbone alone.
    wanted: the shape of each, by canonical shapes. section: the `model` section of weights with these shapes.
    output: the weight whose first axis counts the classes. side: of the image that `--check` runs the model on.
    own: canonical names that only this model has, its neck and head. trunk: those of its backbone.
    """

    name: str
    title: str
    namings: tuple[Naming, ...]
    programs: Mapping[str, Naming]
    expected: Callable[[Collection[str]], list[str]]
    wanted: Callable[[Shapes], dict[str, tuple[int, ...]]]
    section: Callable[[Shapes], dict[str, Any]]
    output: str
    side: int
    own: re.Pattern[str]
    trunk: re.Pattern[str]


YOLOV3 = Known(
    name="yolov3",
    title="YOLOv3-DarkNet53",
    namings=(*yolov3.NAMINGS, *yolov3.BACKBONES),
    programs=yolov3.PROGRAMS,
    expected=yolov3.expected,
    wanted=yolov3.wanted,
    section=yolov3.section,
    output=yolov3.OUTPUT,
    side=64,  # the smallest multiple of all strides at which every tap of a 3x3 kernel meets a pixel
    own=re.compile(r"backblock[0-2]\.|conv[12]\.(conv|norm)\."),
    trunk=re.compile(r"backbone\.(conv[0-5]|layer[1-5])\."),
)
PPYOLO = Known(
    name="ppyolo",
    title="PP-YOLO",
    namings=(*ppyolo.NAMINGS, *ppyolo.BACKBONES),
    programs=ppyolo.PROGRAMS,
    expected=ppyolo_model.expected,
    wanted=ppyolo_model.wanted,
    section=ppyolo_model.section,
    output=ppyolo_model.OUTPUT,
    side=96,  # the smallest at which DropBlock has a square to drop
    own=re.compile(r"neck\.(block|transition|fpn|pan|fpn_transition|pan_transition)[0-2]\.|output[0-2]\."),
    trunk=re.compile(r"backbone\.(stem[1-3]|res[2-5])\."),
)
KNOWN = {known.name: known for known in (YOLOV3, PPYOLO)}
NAMINGS = tuple(dict.fromkeys(naming for known in KNOWN.values() for naming in known.namings))
PROGRAMS = tuple(dict.fromkeys(name for known in KNOWN.values() for name in known.programs))


def of(names: Collection[str]) -> Known:
    """The model that most canonical names are of: by neck and head first, which only it has, then by its backbone."""

    def count(known: Known) -> tuple[int, int]:
        own, trunk = known.own.match, known.trunk.match
        return sum(own(name) is not None for name in names), sum(trunk(name) is not None for name in names)

    return max(KNOWN.values(), key=count)


def expected(names: Collection[str]) -> list[str]:
    """All canonical names, in the network's order, of the model that has those."""
    return of(names).expected(names)


def recognise(arrays: Arrays, file_format: str) -> Renamed:
    """A file's arrays under the canonical names of a model that is known.

    Raises `UnknownModel` where it is none, or has no more than a backbone in common with one, and as
    `rules.recognise` does.
    """
    found = rules.recognise(arrays, namings(file_format), expected)
    if told := rules.strangers(found, expected(found.arrays)):
        raise UnknownModel(f"it is not {of(found.arrays).title}: {told}")
    return found


def namings(file_format: str) -> tuple[Naming, ...]:
    """Whose names a file of this format may have."""
    return (yolov3.DARKNET,) if file_format == "darknet" else NAMINGS


def sizes(fields: Any) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """Depths and channels of a model whose weights darknet files hold, None for any other."""
    return (tuple(fields.depths), tuple(fields.channels)) if fields.name == "yolov3" else (None, None)
