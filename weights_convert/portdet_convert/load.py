"""`pretrained=`: any weight file to the canonical arrays of a model, strict unless told otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np

from portdet.errors import PortdetError
from portdet.train.checkpoint import held
from portdet_convert import cfg, checks, models, ppyolo, yolov3, yolov3_cfg
from portdet_convert.files import WeightsFile, open_weights
from portdet_convert.files.darknet import Conv
from portdet_convert.files.source import Arrays, as_float32
from portdet_convert.rules import Renamed, explain, recognise, strangers

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
    notes: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line for the log."""
        counts = (
            f"{len(self.loaded)} loaded, {len(self.missing)} missing, {len(self.unexpected)} unexpected, "
            f"{len(self.misshapen)} misshapen, {len(self.skipped)} skipped"
        )
        return f"{self.path} ({self.format}, {self.naming} names): {counts}"

    def lines(self) -> Iterator[str]:
        """The summary, the notes, and what was skipped by name."""
        yield from (self.summary(), *self.notes)
        for name, (found, wanted) in self.misshapen.items():
            yield f"  skipped {name}: {found} in the file, {wanted} in the model; starts anew"
        for reason in dict.fromkeys(self.skipped.values()):
            names = [name for name, why in self.skipped.items() if why == reason]
            more = ", ..." if len(names) > 3 else ""
            yield f"  skipped {len(names)}, {reason}: {', '.join(names[:3])}{more}"


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
    an `allow_` list. A file that fills all of `backbone.` and nothing else is accepted as it is; offsets of deformable
    convolutions may be missing there, which start at zero. The arrays are copies, writable and independent of the file.
    Raises `PortdetError` that lists the closest names.
    """
    file, notes = read_for(path, names)
    with checks.naming_file(path):
        found = recognise(file.arrays, models.namings(file.format), lambda _: names)
    report = LoadReport(str(path), file.format, found.naming.name, skipped=found.skipped, notes=notes)
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


def read_for(path: str | Path, names: Shapes) -> tuple[WeightsFile, list[str]]:
    """The file's arrays and what to know of them: of a checkpoint of portdet's, whether it holds raw weights or an
    average. A darknet file gets the order of the YOLOv3 whose shapes are `names`; a `.cfg` beside it must agree."""
    notes: list[str] = []

    def layers(count: int) -> Sequence[Conv]:
        if "backbone.conv0.conv.weight" not in names:
            raise PortdetError("darknet files are known for YOLOv3-DarkNet53 only", where=str(path))
        sizes = yolov3.depths_of(list(names)), yolov3.channels_of(names)
        if (beside := cfg.beside(path)) is not None:
            order = yolov3_cfg.order(path)
            _agree(order(count), yolov3.backbone_layers(*sizes), str(beside))
            notes.extend(order.notes)
        with checks.naming_file(path):
            return yolov3.layers_for(count, *sizes)

    file = open_weights(path, layers)
    return file, [*notes, *filter(None, map(held, file.metadata.values()))]


def _agree(found: Sequence[Conv], wanted: Sequence[Conv], beside: str) -> None:
    """The backbone in a `.cfg` is the model's, layer by layer; then the head is too, as its channels follow."""
    theirs = [layer for layer in found if layer.name.startswith("backbone.")]
    for has, needs in zip_longest(theirs, wanted):
        if has != needs:
            said = (
                f"{layer.name}, {layer.cin} -> {layer.cout} channels" if layer else "none" for layer in (has, needs)
            )
            raise PortdetError(
                f"its layers are not the model's: {next(said)}; in the model {next(said)}",
                where=beside,
                fix="set depths and width of the model to those of the .cfg, or move a .cfg of other weights away",
            )


def _refuse(
    report: LoadReport,
    found: Renamed,
    names: Shapes,
    missing_ok: tuple[str, ...],
    shape_ok: tuple[str, ...],
    extra_ok: tuple[str, ...],
) -> None:
    backbone = {name for name in names if name.startswith("backbone.")}
    offsets = {name for name in backbone if name.endswith(ppyolo.OFFSETS)}
    alone = bool(backbone) and set(found.arrays) in (backbone, backbone - offsets)
    missing = [
        n for n in report.missing if not n.startswith(missing_ok) and not (alone and n not in backbone - offsets)
    ]
    extra = [n for n in report.unexpected if not n.startswith(extra_ok)]
    wrong = {n: shapes for n, shapes in report.misshapen.items() if not n.startswith(shape_ok)}
    if extra and (told := strangers(found, names)):
        raise PortdetError(
            f"is no file of this model: {told}",
            where=report.path,
            fix="give weights of this model, or a file of its backbone alone",
        )
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
