"""The models that conversion knows: what their tensors are, and what each program calls them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from portdet_convert import ppyolo, ppyolo_model, yolov3
from portdet_convert.rules import Naming

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Known:
    """A model of `portdet.models` by its name there, and for a person.

    namings: whose names are recognised. programs: whose names a file can be written in.
    expected: canonical names, in the network's order, of the model that has the given ones, or of its backbone alone.
    wanted: the shape of each, by canonical shapes. section: the `model` section of weights with these shapes.
    output: the weight whose first axis counts the classes. side: of the image that `--check` runs the model on.
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
)
KNOWN = {known.name: known for known in (YOLOV3, PPYOLO)}
NAMINGS = tuple(dict.fromkeys(naming for known in KNOWN.values() for naming in known.namings))
PROGRAMS = tuple(dict.fromkeys(name for known in KNOWN.values() for name in known.programs))


def of(names: Collection[str]) -> Known:
    """The model that canonical names are of."""
    return PPYOLO if any(name.startswith(("backbone.stem", "backbone.res")) for name in names) else YOLOV3


def expected(names: Collection[str]) -> list[str]:
    """All canonical names, in the network's order, of the model that has those."""
    return of(names).expected(names)


def namings(file_format: str) -> tuple[Naming, ...]:
    """Whose names a file of this format may have."""
    return (yolov3.DARKNET,) if file_format == "darknet" else NAMINGS


def sizes(fields: Any) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """Depths and channels of a model whose weights darknet files hold, None for any other."""
    return (tuple(fields.depths), tuple(fields.channels)) if fields.name == "yolov3" else (None, None)
