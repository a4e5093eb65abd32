"""The model that a file's weights belong to: told from their shapes, or a configuration's that must agree with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from portdet.errors import PortdetError
from portdet.models import Detector, load_model
from portdet_convert import yolov3
from portdet_convert.files.source import Arrays

SIDE = 64  # pixels: the smallest multiple of all strides at which every tap of a 3x3 kernel meets a pixel
_FIRST_HEAD = "backblock0.conv6.weight"

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
    """The model whose weights are `arrays` (all, or the backbone's): that of `section` with the file's class count.

    Raises `PortdetError` naming the first tensor that has another shape there, or is not there.
    """
    head = arrays.get(_FIRST_HEAD)
    classes = {} if head is None else {"classes": head.shape[0] // 3 - 5}
    given = dict(section) if section is not None else _told(arrays)
    model = load_model({**given, **classes}, imgsz=SIDE, batch=1)
    wanted = _shapes(model)
    for name, array in arrays.items():
        if name not in wanted or array.shape != wanted[name]:
            has = f"is {wanted[name]}" if name in wanted else "is not there"
            raise PortdetError(
                f"'{name}' is {array.shape} in the file, in the model it {has}",
                fix="give the configuration that the weights belong to; only its class count may be another",
            )
    return Fit({**given, **classes}, _other_heads(arrays, given) if section is not None else {})


def _told(arrays: Arrays) -> dict[str, Any]:
    """The published model of these depths and channels. Leaky ReLU, so that every channel reaches the output."""
    channels = yolov3.channels_of({name: array.shape for name, array in arrays.items()})
    section = {"name": "yolov3", "profile": "darknet", "depths": yolov3.depths_of(list(arrays))}
    return {**section, "width": channels[-1] / yolov3.CHANNELS[-1]}


def _other_heads(arrays: Arrays, section: dict[str, Any]) -> dict[str, tuple[Shape, Shape]]:
    model = load_model(section, imgsz=SIDE, batch=1)
    wanted = _shapes(model)
    return {
        name: (array.shape, wanted[name])
        for name, array in arrays.items()
        if name.startswith(model.head) and array.shape != wanted[name]
    }


def _shapes(model: Detector) -> dict[str, Shape]:
    return {name: info.shape for name, info in model.graph.weights().items()}
