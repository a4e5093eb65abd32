"""The commands `portdet weights show` and `portdet weights diff`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from portdet.cli.options import Number
from portdet.console import cell, console, say
from portdet.errors import PortdetError
from portdet.outside import LONGEST_SHOWN
from portdet.train.checkpoint import held
from portdet_convert import aliases, checks, models, yolov3_cfg
from portdet_convert.command import sizes_of
from portdet_convert.compare import gap, statistics
from portdet_convert.convert import checksum
from portdet_convert.files import WeightsFile, open_weights
from portdet_convert.files.source import Array, Arrays, dtype_name

MOST_ROWS = 2000  # of a table: a row takes 1 ms, and the largest detectors have 1000 tensors
MOST_REMARKS = 8  # of a file, in a line
_BUFFERS = ("running_mean", "running_var", "moving_mean", "moving_variance", "_mean", "_variance")
_MODEL = click.option("--model", metavar="CONFIG", help="Configuration of the model, for a darknet file.")
_CFG = click.option("--cfg", type=click.Path(path_type=Path), help="darknet's .cfg of a darknet file: its layers.")


@click.group()
def weights() -> None:
    """Look into weight files."""


@weights.command()
@click.argument("file", type=click.Path(path_type=Path))
@_MODEL
@_CFG
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(file: Path, model: str | None, cfg: Path | None, as_json: bool) -> None:
    """Names, shapes, dtypes and statistics of every tensor of FILE.

    Mean and the like are of the finite values; NaN and infinities are counted, and their rows are red.
    """
    found = _open(file, model, cfg)
    rows = [_row(name, array) for name, array in found.arrays.items()]
    alias = aliases.shared(found.arrays)
    for row in rows:
        row["shares"] = alias.get(row["name"])
    if as_json:
        about = {"file": str(file), **_totals(found), "metadata": found.metadata, "tensors": rows}
        click.echo(json.dumps({**about, "same_bits": aliases.twins(found.arrays, _checksums(rows))}))
        return
    table = Table("name", "shape", "dtype", "mean", "std", "min", "max", "NaN", "inf", "sha256")
    for row in rows[:MOST_ROWS]:
        numbers = ("" if row[key] is None else f"{row[key]:.4g}" for key in ("mean", "std", "least", "greatest"))
        counts = ("" if row[key] is None else str(row[key]) for key in ("nan", "infinite"))
        cells = (cell(row["name"]), str(row["shape"]), row["dtype"], *numbers, *counts, row["sha256"])
        table.add_row(*cells, style="red" if _bad(row) else "")
    console().print(table)
    for line in _summary(file, found, rows):
        say(line)


def _checksums(rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    return {row["name"]: row["sha256"] for row in rows}


def _row(name: str, array: Array) -> dict[str, Any]:
    found = statistics(array)
    values = asdict(found) if found else dict.fromkeys(("mean", "std", "least", "greatest", "nan", "infinite"))
    numbers = {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in values.items()}
    return {"name": name, "shape": array.shape, "dtype": dtype_name(array), **numbers, "sha256": checksum(array)}


def _bad(row: dict[str, Any]) -> bool:
    return bool(row["nan"] or row["infinite"])


def _totals(found: WeightsFile) -> dict[str, Any]:
    numbers = {name: array for name, array in found.arrays.items() if array.dtype.kind != "U"}
    learned = [a for name, a in numbers.items() if a.dtype.kind in "fV" and not name.endswith(_BUFFERS)]
    return {
        "format": found.format,
        "values": sum(array.size for array in numbers.values()),
        "parameters": sum(array.size for array in learned),
        "bytes": sum(array.nbytes for array in numbers.values()),
    }


def _summary(file: Path, found: WeightsFile, rows: Sequence[dict[str, Any]]) -> list[str]:
    total = _totals(found)
    told = (held(value) or f"{key[:40]} {value[:LONGEST_SHOWN]}" for key, value in found.metadata.items())
    extra = "".join(f", {remark}" for remark in islice(told, MOST_REMARKS))
    extra += f", {len(found.metadata) - MOST_REMARKS} remarks more" if len(found.metadata) > MOST_REMARKS else ""
    lines = [f"the first {MOST_ROWS} of {len(rows)} tensors; --json prints all"] if len(rows) > MOST_ROWS else []
    lines += aliases.lines(found.arrays, _checksums(rows))
    lines += [
        f"{file}: {found.format}, {len(found.arrays)} tensors, {total['values']:,} values, of these "
        f"{total['parameters']:,} parameters (no statistics, no counters), {total['bytes']:,} bytes{extra}"
    ]
    if bad := [row["name"] for row in rows if _bad(row)]:
        lines.append(f"{len(bad)} tensors hold NaN or infinities, first '{bad[0]}'")
    return lines


@weights.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@_MODEL
@_CFG
@click.option(
    "--atol",
    type=Number(0, 1e300),
    default=0.0,
    show_default=True,
    help="Values differ when |a - b| > atol + rtol * |b|.",
)
@click.option(
    "--rtol",
    type=Number(0, 1e300),
    default=0.0,
    show_default=True,
    help="With both 0, bits and dtypes must be the same.",
)
@click.pass_context
def diff(
    context: click.Context, a: Path, b: Path, model: str | None, cfg: Path | None, atol: float, rtol: float
) -> None:
    """Compare two files tensor by tensor, under canonical names, in the order of the network.

    Exit code 0: the same; 1: something differs; 3: a file cannot be read.
    """
    try:
        first, second, naming = _by_name(_open(a, model, cfg), _open(b, model, cfg))
    except PortdetError as error:
        say(f"error: {error}", err=True)
        context.exit(3)
    table = Table("name", "difference", "values", "largest", "relative", "at")
    names = [*first, *(name for name in second if name not in first)]
    worst: tuple[float, str] = (-1.0, "")
    differ = 0
    for name in names:
        cells, absolute = _difference(first.get(name), second.get(name), atol, rtol)
        if cells:
            differ += 1
            if differ <= MOST_ROWS:
                table.add_row(cell(name), *cells)
            worst = max(worst, (absolute, name), key=lambda item: item[0])
    if differ:
        console().print(table)
    if differ > MOST_ROWS:
        say(f"the first {MOST_ROWS} that differ")
    largest = f"; the largest difference is {worst[0]:.3g}, in {worst[1]}" if worst[0] >= 0 else ""
    say(f"{differ} of {len(names)} tensors differ{largest}{naming}")
    context.exit(1 if differ else 0)


def _open(path: Path, model: str | None, cfg: Path | None) -> WeightsFile:
    with checks.naming_file(path):
        return open_weights(path, yolov3_cfg.order(path, cfg, *sizes_of(model)))


def _by_name(*found: WeightsFile) -> tuple[Arrays, Arrays, str]:
    """Both files' arrays under canonical names, in the network's order, or under their own if no rules fit both."""
    try:
        renamed = [models.recognise(file.arrays, file.format) for file in found]
    except PortdetError:
        first, second = ({name: a for name, a in file.arrays.items() if a.dtype.kind != "U"} for file in found)
        return first, second, "; compared by the names in the files, which are of no known model"
    ordered = []
    for one, file in zip(renamed, found, strict=True):
        rest = {name: file.arrays[name] for name in one.unknown}
        order = [name for name in models.expected(one.arrays) if name in one.arrays]
        ordered.append({**{name: one.arrays[name] for name in order}, **one.arrays, **rest})
    skipped = sum(len(one.skipped) for one in renamed)
    return ordered[0], ordered[1], f"; {skipped} skipped that are no weights" if skipped else ""


def _difference(a: Array | None, b: Array | None, atol: float, rtol: float) -> tuple[tuple[str, ...], float]:
    """What differs, in how many values, the largest absolute and relative difference, its index; () if nothing does."""
    if a is None or b is None:
        return ("only in the second file" if a is None else "only in the first file",), -1.0
    if a.shape != b.shape:
        return (f"shape {a.shape} and {b.shape}",), -1.0
    found = gap(a, b, atol, rtol)
    if found is None:
        return (), -1.0
    what = "values" if dtype_name(a) == dtype_name(b) else f"{dtype_name(a)} and {dtype_name(b)}"
    count = f"{found.count} of {a.size}"
    return (what, count, f"{found.absolute:.3g}", f"{found.relative:.2g}", str(found.at)), found.absolute
