"""The model that a file's weights belong to: told from their shapes, or a configuration's that must agree with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from portdet.errors import PortdetError
from portdet.models import Detector, load_model
from portdet.outside import shown
from portdet_convert import models
from portdet_convert.files.source import Arrays

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Fit:
    """The `model` section that a file's tensors fill, and the output layers that a configuration has in another shape.

    other_heads: canonical name -> shape in the file, shape in the configuration's model.
    """

    section: dict[str, Any]
    other_heads: dict[str, tuple[Shape, Shape]]

    @property
    def description(self) -> str:
        """For a person: `yolov3, width=0.125, classes=20`."""
        return ", ".join([str(self.section["name"]), *(f"{k}={v}" for k, v in self.section.items() if k != "name")])

    @property
    def side(self) -> int:
        """Of the square image that the proof runs the model on, in pixels."""
        return models.KNOWN[self.section["name"]].side

    def notes(self, model: str) -> list[str]:
        """What to know about the output layers: converted as they are, of no use for the configuration's classes."""
        if not self.other_heads:
            return []
        lines = [
            f"  {name}: {found} in the file, {wanted} in the model"
            for name, (found, wanted) in self.other_heads.items()
        ]
        head = f"{len(lines)} tensors of the output layers are of another class count than {model}'s"
        return [f"{head}; converted as they are, `portdet train {model} --pretrained` skips them:", *lines]


def fit(arrays: Arrays, section: Mapping[str, Any] | None = None) -> Fit:
    """The model whose weights are `arrays` (all, or the backbone's): that of `section` with the file's class count, or
    the one that their shapes tell. A section that states no `classes` has the file's.

    Raises `PortdetError` naming the first tensor that has another shape there, or is not there.
    """
    known, found = models.of(arrays), {name: array.shape for name, array in arrays.items()}
    given = dict(section) if section is not None else known.section(found)
    told = "classes" in given
    if given.get("name") != known.name:
        raise PortdetError(f"is {known.title}, the configuration's model is {shown(given.get('name'))}")
    model = load_model(given, imgsz=known.side, batch=1)
    wanted, other_heads = _shapes(model), dict[str, tuple[Shape, Shape]]()
    if known.output in found:
        fixed = wanted[known.output][0] // 3 - model.fields.classes
        given["classes"] = found[known.output][0] // 3 - fixed
        if given["classes"] != model.fields.classes:
            heads = (name for name in found if name.startswith(model.head) and name in wanted)
            other_heads = {name: (found[name], wanted[name]) for name in heads} if told else {}
            wanted = _shapes(load_model(given, imgsz=known.side, batch=1))
    for name, shape in found.items():
        if shape != wanted.get(name):
            has = f"is {wanted[name]}" if name in wanted else "is not there"
            raise PortdetError(
                f"'{name}' is {shape} in the file, in the model it {has}",
                fix="give the configuration that the weights belong to; only its class count may be another",
            )
    return Fit(given, other_heads)


def _shapes(model: Detector) -> dict[str, Shape]:
    return {name: info.shape for name, info in model.graph.weights().items()}
