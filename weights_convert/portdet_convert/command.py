"""The commands `portdet convert` and `portdet weights`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.table import Table

from portdet.config import load
from portdet.console import console
from portdet.errors import PortdetError
from portdet_convert import checks, yolov3
from portdet_convert.convert import SUFFIXES, checksum, ordered
from portdet_convert.convert import convert as convert_file
from portdet_convert.files import FORMATS, WeightsFile, open_weights
from portdet_convert.files.source import Array, Arrays, as_float32, dtype_name
from portdet_convert.rules import recognise

_EXTENSION = {"darknet": ".weights", **{name: f".{name}" for name in FORMATS if name != "darknet"}}


def _layout(model: str | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Depths and channels of a configuration's YOLOv3; the published ones without a configuration."""
    if model is None:
        return yolov3.DEPTHS, yolov3.CHANNELS
    section = load(model).model
    if section.get("name") != "yolov3":
        raise PortdetError(f"conversion is known for yolov3, not for '{section.get('name')}'", where=model)
    fields: Any = importlib.import_module("portdet.models.yolov3").Config.model_validate(section)
    return tuple(fields.depths), tuple(fields.channels)


def _open(path: Path, model: str | None = None) -> WeightsFile:
    depths, channels = _layout(model)
    with checks.naming_file(path):
        return open_weights(path, lambda count: yolov3.layers_for(count, depths, channels))


@click.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write; SRC with the format's suffix.")
@click.option("--to", type=click.Choice(FORMATS), help="Format to write; told from the output's name if left out.")
@click.option("--model", metavar="CONFIG", help="Configuration of the model: depths and width of a darknet file.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the report on every tensor there, as JSON.")
@click.option("--allow-nan", is_flag=True, help="Convert NaN, infinities and negative variances as they are.")
@click.option("-v", "--verbose", is_flag=True, help="Print the report on every tensor.")
def convert(
    src: Path,
    output: Path | None,
    to: str | None,
    model: str | None,
    report: Path | None,
    allow_nan: bool,
    verbose: bool,
) -> None:
    """Convert weights between darknet, .ckpt, .pth, .pdparams, .safetensors and .npz.

    \b
    portdet convert darknet53.conv.74 -o darknet53.ckpt
    portdet convert yolov3.pdparams --to pth
    """
    if output is None:
        if to is None:
            raise PortdetError("no output", fix="give -o FILE or --to FORMAT")
        stem = src.with_suffix("") if src.suffix in SUFFIXES else src
        output = stem.with_name(stem.name + _EXTENSION[to])
    depths, channels = _layout(model)
    done = convert_file(src, output, to=to, depths=depths, channels=channels, allow_nan=allow_nan)
    if report is not None:
        done.save(report)
    screen = console()
    if verbose:
        screen.print(done.table())
    screen.print(done.summary(), soft_wrap=True, highlight=False)


@click.group()
def weights() -> None:
    """Look into weight files."""


@weights.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--model", metavar="CONFIG", help="Configuration of the model, for a darknet file.")
def show(file: Path, model: str | None) -> None:
    """Names, shapes, dtypes and statistics of every tensor of FILE."""
    found = _open(file, model)
    table = Table("name", "shape", "dtype", "mean", "std", "min", "max", "NaN", "sha256")
    for name, array in found.arrays.items():
        table.add_row(name, str(array.shape), dtype_name(array), *_statistics(array), checksum(array))
    screen = console()
    screen.print(table)
    values = sum(array.size for array in found.arrays.values())
    extra = "".join(f", {key} {value}" for key, value in found.metadata.items())
    screen.print(f"{file}: {found.format}, {len(found.arrays)} tensors, {values:,} values{extra}", soft_wrap=True)


def _statistics(array: Array) -> list[str]:
    if array.dtype.kind == "U" or not array.size:
        return ["", "", "", "", ""]
    values = as_float32(array).astype(np.float64)
    nan = int(np.isnan(values).sum())
    good = values[np.isfinite(values)]
    shown = [good.mean(), good.std(), good.min(), good.max()] if good.size else [np.nan] * 4
    return [*(f"{value:.4g}" for value in shown), str(nan)]


@weights.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--model", metavar="CONFIG", help="Configuration of the model, for a darknet file.")
@click.pass_context
def diff(context: click.Context, a: Path, b: Path, model: str | None) -> None:
    """Compare two files tensor by tensor, under canonical names; exit code 1 if anything differs."""
    first, second = (_canonical(path, model) for path in (a, b))
    table = Table("name", "difference", "largest", "at")
    for name in [*first, *(name for name in second if name not in first)]:
        line = _difference(first.get(name), second.get(name))
        if line:
            table.add_row(name, *line)
    screen = console()
    if table.row_count:
        screen.print(table)
    screen.print(f"{table.row_count} of {len({**first, **second})} tensors differ", highlight=False)
    context.exit(1 if table.row_count else 0)


def _canonical(path: Path, model: str | None) -> Arrays:
    file = _open(path, model)
    with checks.naming_file(path):
        return ordered(recognise(file.arrays, yolov3.NAMINGS, yolov3.expected))


def _difference(a: Array | None, b: Array | None) -> tuple[str, str, str] | None:
    """What differs, the largest absolute difference, and its index; None if the bits are equal."""
    if a is None or b is None:
        return "only in the second file" if a is None else "only in the first file", "", ""
    if a.shape != b.shape:
        return f"shape {a.shape} and {b.shape}", "", ""
    if dtype_name(a) == dtype_name(b) and checksum(a) == checksum(b):
        return None
    gap = np.abs(as_float32(a).astype(np.float64) - as_float32(b).astype(np.float64))
    at = np.unravel_index(int(np.argmax(gap)), gap.shape)
    what = "values" if dtype_name(a) == dtype_name(b) else f"{dtype_name(a)} and {dtype_name(b)}"
    return what, f"{gap[at]:.3g}", str(tuple(int(i) for i in at))
