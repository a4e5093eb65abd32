"""PP-YOLO told from a file: the tensors that it must have, and the configuration that they are weights of."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from portdet.errors import PortdetError
from portdet.models.registry import fields_of

Shapes = Mapping[str, Sequence[int]]
OUTPUT = "output0.weight"
_BACKBONE = ("kind", "depths", "deformable", "width")
_HEAD = ("neck", "neck_width", "iou_aware")
_PUBLISHED = {"fpn": "r50vd_dcn", "light": "r18vd", "pan": "v2"}
# The first unit of each neck, which has as many channels as the neck is wide.
_FIRST = {"pan": "neck.fpn0.left", "fpn": "neck.block0.conv0.conv", "light": "neck.block0.route"}


def expected(names: Collection[str]) -> list[str]:
    """All canonical names, in the network's order, of the model that has those: the backbone alone if no other is
    among them; none if there can be no such model."""
    try:
        return list(_tensors(_whole(names), **_structure(names)))
    except PortdetError:
        return []


def wanted(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape, by the channels and classes that canonical shapes show. Raises `PortdetError` where there
    can be no such model: `backbone.stem3` of 10^6 channels."""
    return _tensors(_whole(shapes), **_sizes(shapes))


def section(shapes: Shapes) -> dict[str, Any]:
    """The `model` section of weights with these shapes: a published variant, or what differs from one.

    Files do not tell 3 * (6 + classes) outputs from 3 * (5 + classes): PP-YOLO r18vd is taken to predict no overlaps,
    and every other to predict them.
    """
    found, whole = _sizes(shapes), _whole(shapes)
    keys = (*_BACKBONE, *_HEAD) if whole else _BACKBONE
    apart = {variant: _apart(found, variant, keys) for variant in _model().VARIANTS}
    variant = next((name for name, keys in apart.items() if not keys), _PUBLISHED[found["neck"]])
    classes = {"classes": found["classes"]} if whole else {}
    return {"name": "ppyolo", "variant": variant, **{key: found[key] for key in apart[variant]}, **classes}


def _apart(found: Mapping[str, Any], variant: str, keys: Collection[str]) -> list[str]:
    fields = fields_of({"name": "ppyolo", "variant": variant})
    return [key for key in keys if getattr(fields, key) != found[key]]


def _whole(names: Collection[str]) -> bool:
    return any(name.startswith(("neck.", "output")) for name in names)


def _structure(names: Collection[str]) -> dict[str, Any]:
    """The fields that the names alone show."""

    def has(pattern: str) -> bool:
        return any(re.match(pattern, name) for name in names)

    numbers = [re.match(r"backbone\.res([2-5])\.([0-9]+)\.", name) for name in names]
    blocks = {(int(match[1]), match[2]) for match in numbers if match}
    kind = "bottleneck" if has(r"backbone\.res[2-5]\.[0-9]+\.conv3\.") else "basic"
    if has(r"neck\.(fpn|pan)"):
        neck = "pan"
    elif has(r"neck\.block[0-2]\.conv") or (kind == "bottleneck" and not has(r"neck\.block")):
        neck = "fpn"
    else:
        neck = "light"
    return {
        "kind": kind,
        "depths": tuple(max(1, sum(stage == block[0] for block in blocks)) for stage in range(2, 6)),
        "deformable": has(r"backbone\.res5\..*\.conv_offset\."),
        "neck": neck,
        "iou_aware": neck != "light",
    }


def _sizes(shapes: Shapes) -> dict[str, Any]:
    """All fields that decide names and shapes."""
    found = _structure(shapes)
    found["width"] = max(2, _first(shapes, "backbone.stem3.norm.weight"))
    if _whole(shapes):
        found["neck_width"] = max(4, _first(shapes, f"{_FIRST[found['neck']]}.norm.weight"))
        outputs = _first(shapes, "output0.bias") // 3
        found["iou_aware"] &= outputs > 6
        found["classes"] = max(1, outputs - 5 - found["iou_aware"])
    return found


def _first(shapes: Shapes, name: str) -> int:
    """Length of a vector, which no transposition changes."""
    shape = shapes[name]
    return shape[0] if len(shape) else 0


@cache
def _tensors(whole: bool, **fields: Any) -> dict[str, tuple[int, ...]]:
    """Name and shape of every weight, with or without neck and head."""
    variant = _PUBLISHED[fields["neck"]]
    model = _model()
    try:
        spec = model.build(fields_of({"name": "ppyolo", "variant": variant, "neck_width": 4, **fields}))
    except PortdetError as error:
        fix = "the file is damaged, or belongs to another model"
        raise PortdetError(f"its tensors are of no PP-YOLO: {error.what}", fix=fix) from None
    return {name: param.shape for name, param in spec.items() if whole or name.startswith("backbone.")}


def _model() -> Any:
    """Imported when a PP-YOLO comes along: it takes longer than to convert a small file."""
    return import_module("portdet.models.ppyolo")
