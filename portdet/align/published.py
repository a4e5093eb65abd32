"""Reading what runs are compared with: a table of published curves, a run's results.csv, an earlier alignment.

A table is YAML; `configs/published/` ships some. All values are as COCO's metric gives them, between 0 and 1:

    title: what it is, for headings
    source: where the numbers were published
    trained: from what, how long, batch, validation set
    epochs: [2, 4, 6]                 # of all curves that have no `epochs` of their own
    spread:                           # optional: largest difference that equal runs are known to show
      AP: {2: 0.012, 6: 0.005}        # at these epochs; linear in between, unknown outside
    curves:
      name of the run:
        AP: [0.41, 0.50, 0.54]        # one value an epoch; null where none was published
        AP50: [0.69, null, 0.80]
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from portdet.config import config_root
from portdet.errors import PortdetError, nearest
from portdet.evaluate.coco_map import NAMES
from portdet.outside import LONGEST_NAME, MOST_BYTES, read_text, shown
from portdet.plain_yaml import read_yaml
from portdet.report.align_reference import Reference
from portdet.report.align_run import AlignRun
from portdet.report.ladder_data import LadderReport
from portdet.report.results import read as read_results

_KEYS = ("title", "source", "trained", "epochs", "spread", "curves")
_NEEDED = ("title", "source", "trained", "curves")


def read_reference(target: str, spread: float | None = None) -> Reference:
    """The curves of a table (also by its shipped name), of results.csv, or of the folder of a run or an alignment.

    spread: run-to-run spread of AP at every epoch, where the curves come without one.
    Raises PortdetError that names the file and the place in it for anything that is not such a table.
    """
    path = _find(target)
    if path.is_dir():
        found = [path / name for name in ("align.json", "results.csv") if (path / name).is_file()]
        if not found:
            fix = "name a folder of `portdet train` or `portdet align`"
            raise PortdetError(f"{path} has neither align.json nor results.csv", fix=fix)
        path = found[0]
    reader = {".yaml": _table, ".yml": _table, ".csv": _results, ".json": _alignment}.get(path.suffix.lower())
    if reader is None:
        raise PortdetError(f"cannot read curves from {path}", fix="give a .yaml table, results.csv or a run folder")
    reference = reader(path)
    if not any(reference.span(name) for name in NAMES):
        raise PortdetError("no AP in it: nothing to compare with", where=str(path), fix="validate the run first")
    if spread is not None:
        if reference.spread:
            raise PortdetError("the table states its spread itself", where=str(path), fix="leave --spread out")
        epochs = list(reference.span("AP"))
        if not epochs:
            raise PortdetError("--spread is for AP, which is not in it", where=str(path), fix="add AP to the curves")
        reference.spread["AP"] = [[float(epoch), spread] for epoch in (epochs[0], epochs[-1])]
    return reference


def _find(target: str) -> Path:
    shipped = config_root() / "published"
    for candidate in (Path(target), shipped / target, shipped / f"{target}.yaml"):
        if os.path.exists(candidate):
            return candidate
    known = [path.stem for path in shipped.glob("*.yaml")]
    raise PortdetError(f"no curves {shown(target)}: neither a file nor a published table", fix=nearest(target, known))


def _results(path: Path) -> Reference:
    name = path.resolve().parent.name if path.name == "results.csv" else path.stem
    return Reference(name, str(path), "", {name: _scores(read_results(path))})


def _alignment(path: Path) -> Reference:
    run = _trained(path)
    curves = {backend.name: _scores(backend.epochs) for backend in run.backends}
    return Reference(run.config_name, str(path), "", curves)


def _trained(path: Path) -> AlignRun:
    """The trainings of an alignment, or of a ladder with the level `train`."""
    text = read_text(path, most=MOST_BYTES)
    if '"outcomes"' not in text:
        return AlignRun.from_json(text, str(path))
    ladder = LadderReport.from_json(text, str(path))
    if ladder.training is None:
        raise PortdetError("this ladder trained nothing", where=str(path), fix="add --level train to it")
    return ladder.training


def _scores(rows: Iterable[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k == "epoch" or (k in NAMES and v >= 0)} for row in rows]


def _table(path: Path) -> Reference:
    values = read_yaml(path, fix="see portdet/align/published.py")
    if not isinstance(values, dict) or not values:
        raise PortdetError("an empty table: no curves in it", where=str(path), fix="see portdet/align/published.py")
    if unknown := [key for key in values if key not in _KEYS]:
        raise PortdetError(f"unknown key {shown(unknown[0])}", where=str(path), fix=nearest(str(unknown[0]), _KEYS))
    if missing := [key for key in _NEEDED if not values.get(key)]:
        raise PortdetError(f"'{missing[0]}' is missing or empty", where=str(path), fix=f"needed: {', '.join(_NEEDED)}")
    curves = _mapping(values["curves"], f"{path}: curves")
    shared = values.get("epochs")
    rows: dict[str, list[dict[str, float]]] = {}
    for name, curve in curves.items():
        place = f"{path}: {str(name)[:60]}"
        rows[str(name)[:LONGEST_NAME]] = _curve(_mapping(curve, place), shared, place)
    spread = _mapping(values.get("spread") or {}, f"{path}: spread")
    return Reference(
        _words(values["title"], f"{path}: title"),
        _words(values["source"], f"{path}: source"),
        _words(values["trained"], f"{path}: trained"),
        rows,
        {
            _metric(name, f"{path}: spread"): _spread(points, f"{path}: spread.{str(name)[:60]}")
            for name, points in spread.items()
        },
    )


def _curve(curve: dict[str, Any], shared: Any, where: str) -> list[dict[str, float]]:
    """A curve's columns as rows."""
    epochs = curve.pop("epochs", shared)
    if not isinstance(epochs, list) or not epochs or not all(type(e) is int and 0 < e < 10**9 for e in epochs):
        raise PortdetError(f"epochs are {shown(epochs)}", where=where, fix="list them: epochs: [2, 4, 6]")
    if sorted(set(epochs)) != epochs:
        raise PortdetError(f"epochs {shown(epochs)} do not rise", where=where, fix="give each epoch once, in order")
    if not curve:
        raise PortdetError("an empty curve", where=where, fix=f"give a list of values for one of {', '.join(NAMES)}")
    rows: list[dict[str, float]] = [{"epoch": float(epoch)} for epoch in epochs]
    for name, values in curve.items():
        metric = _metric(name, where)
        if not isinstance(values, list) or len(values) != len(epochs):
            count = len(values) if isinstance(values, list) else "no list of"
            raise PortdetError(f"{count} values of {metric} for {len(epochs)} epochs", where=where, fix="null: unknown")
        for row, value in zip(rows, values, strict=True):
            if value is not None:
                row[metric] = _share(value, f"{where}: {metric}, epoch {row['epoch']:g}")
    return rows


def _spread(points: Any, where: str) -> list[list[float]]:
    points = _mapping(points, where)
    if not points or not all(type(epoch) is int and abs(epoch) < 10**9 for epoch in points):
        raise PortdetError(
            f"a spread by epoch is needed, not {shown(points)}", where=where, fix="write {2: 0.012, 16: 0.005}"
        )
    return [[float(epoch), _share(points[epoch], f"{where}: epoch {epoch}")] for epoch in sorted(points)]


def _metric(name: Any, where: str) -> str:
    if name not in NAMES:
        raise PortdetError(f"unknown metric {shown(name)}", where=where, fix=nearest(str(name), NAMES))
    return str(name)


def _share(value: Any, where: str) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise PortdetError(
            f"{shown(value)} is no AP", where=where, fix="AP lies between 0 and 1: write 0.417 for 41.7 %"
        )
    return float(value)


def _words(value: Any, where: str) -> str:
    """Text of a heading; a year is text too."""
    if type(value) not in (str, int, float) or len(str(value)) > 2000:
        raise PortdetError(
            f"expected text, found {shown(value)}", where=where, fix="write a line of at most 2000 characters"
        )
    return str(value)


def _mapping(value: Any, where: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise PortdetError(f"expected names with values, found {type(value).__name__}", where=where)
    return dict(value)
