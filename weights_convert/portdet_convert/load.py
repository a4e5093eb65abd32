"""`pretrained=`: any weight file to the canonical arrays of a model, strict unless told otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from portdet.errors import PortdetError
from portdet_convert import checks, ppyolo, yolov3
from portdet_convert.files import WeightsFile, open_weights
from portdet_convert.files.darknet import Conv
from portdet_convert.files.source import Arrays, as_float32
from portdet_convert.rules import Renamed, explain, recognise

Shapes = Mapping[str, Sequence[int]]


@dataclass
class LoadReport:
    """What became of every tensor of the file and every name of the model."""

    path: str
    format: str
    naming: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """One line for the log."""
        counts = (
            f"{len(self.loaded)} loaded, {len(self.missing)} missing, {len(self.unexpected)} unexpected, "
            f"{len(self.misshapen)} misshapen, {len(self.skipped)} skipped"
        )
        return f"{self.path} ({self.format}, {self.naming} names): {counts}"


def load_canonical(
    path: str | Path,
    names: Shapes,
    *,
    allow_missing: Sequence[str] = (),
    allow_misshapen: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    allow_nan: bool = False,
) -> tuple[Arrays, LoadReport]:
    """Read `path` into float32 arrays under the canonical names of a model; `names` holds its name -> shape.

    Every name must be filled with its shape and every tensor of the file used, except names that start with a word of
    an `allow_` list. A file that fills all of `backbone.` and nothing else is accepted as it is. The arrays are
    copies, writable and independent of the file. Raises `PortdetError` that lists the closest names.
    """
    file = read_for(path, names)
    with checks.naming_file(path):
        found = recognise(file.arrays, (*yolov3.NAMINGS, *ppyolo.NAMINGS), lambda _: names)
    report = LoadReport(str(path), file.format, found.naming.name, skipped=found.skipped)
    for name, shape in names.items():
        if name not in found.arrays:
            report.missing.append(name)
        elif found.arrays[name].shape != tuple(shape):
            report.misshapen[name] = (found.arrays[name].shape, tuple(shape))
        else:
            report.loaded.append(name)
    report.unexpected = [*found.unknown, *(found.origin[name][0] for name in found.arrays if name not in names)]
    _refuse(report, found, names, tuple(allow_missing), tuple(allow_misshapen), tuple(allow_unexpected))
    arrays = {name: np.array(as_float32(found.arrays[name]), dtype=np.float32, order="C") for name in report.loaded}
    if not allow_nan:
        checks.finite(arrays, str(path))
    return arrays, report


def read_for(path: str | Path, names: Shapes) -> WeightsFile:
    """The file's arrays; a darknet file gets the order of the YOLOv3 whose shapes are `names`."""

    def layers(count: int) -> Sequence[Conv]:
        if "backbone.conv0.conv.weight" not in names:
            raise PortdetError("darknet files are known for YOLOv3-DarkNet53 only", where=str(path))
        with checks.naming_file(path):
            return yolov3.layers_for(count, yolov3.depths_of(list(names)), yolov3.channels_of(names))

    return open_weights(path, layers)


def _refuse(
    report: LoadReport,
    found: Renamed,
    names: Shapes,
    missing_ok: tuple[str, ...],
    shape_ok: tuple[str, ...],
    extra_ok: tuple[str, ...],
) -> None:
    backbone = {name for name in names if name.startswith("backbone.")}
    only_backbone = bool(backbone) and set(found.arrays) == backbone
    missing = [n for n in report.missing if not n.startswith(missing_ok) and not (only_backbone and n not in backbone)]
    extra = [n for n in report.unexpected if not n.startswith(extra_ok)]
    wrong = {n: shapes for n, shapes in report.misshapen.items() if not n.startswith(shape_ok)}
    if missing or extra:
        raise PortdetError(
            f"{len(missing)} of {len(names)} tensors are not in the file, {len(extra)} of the file are not used "
            f"({report.naming} names): {explain(missing, extra)}",
            where=report.path,
            fix="give weights of this model, or allow the names that may be missing by their prefix",
        )
    if wrong:
        name, (has, needs) = next(iter(wrong.items()))
        raise PortdetError(
            f"{len(wrong)} tensors have another shape; the first is {name}: {has} in the file, {needs} in the model",
            where=report.path,
            fix="same depths, width and classes are needed; for another class count allow the output layers by prefix",
        )
