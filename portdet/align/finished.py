"""Finished training runs as an alignment shows them, and comparing them without training anything."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter

from portdet.align.against import judge_against
from portdet.align.rule import Trace
from portdet.errors import PortdetError
from portdet.evaluate.coco_map import NAMES
from portdet.files import write_text
from portdet.outside import read_csv, read_json, shown
from portdet.report import align_page, plots
from portdet.report.align_reference import Reference
from portdet.report.align_run import AlignRun, BackendRun
from portdet.report.align_tables import markdown
from portdet.report.results import read as read_results

T = TypeVar("T")


def compare_finished(folders: Sequence[Path], reference: Reference, target: Path) -> AlignRun:
    """Hold finished runs against curves; writes align.json, align.html, align.md and side_by_side.png to `target`.

    folders: of `portdet train`, or of `portdet align`, which stands for the runs in it. Raises PortdetError for one
    without results and where runs and curves have nothing in common.
    """
    places = [place for folder in folders for place in _runs_in(folder)]
    runs = [read_run(place, name, target) for place, name in zip(places, _names(places), strict=True)]
    intro = "finished runs, held against curves of others:"
    result = AlignRun(target.name, "", "", runs, reference=reference, intro=intro)
    judge_against(result)
    write(target, result)
    return result


def write(folder: Path, result: AlignRun) -> None:
    """All files that an alignment leaves."""
    plots.side_by_side(folder / "side_by_side.png", result)
    result.save(folder / "align.json")
    align_page.save(folder / "align.html", result)
    write_text(folder / "align.md", markdown(result) + "\n")


def read_run(folder: Path, name: str, page: Path) -> BackendRun:
    """A finished training run as the page shows it; `page` is the folder that pictures are named from.

    Only results.csv has to be there: another program may have written it.
    """
    rows = read_results(folder / "results.csv")
    if not rows:
        raise PortdetError(f"{folder} has no finished epoch", fix="train it further: portdet train --resume")
    facts = read_facts(folder)
    scored = next((row for row in reversed(rows) if row.keys() & set(NAMES)), {})
    picture = folder / "val_batch.jpg"
    return BackendRun(
        name=name,
        version=next((facts[key] for key in ("torch", "mindspore", "paddle", name) if key in facts), ""),
        device=facts.get("device", ""),
        seconds=float(rows[-1].get("time", 0.0)),
        epochs=[dict(row) for row in rows],
        step_losses=[_number(row, "loss", folder) for row in _steps(folder)],
        metrics={key: scored[key] for key in NAMES if key in scored},
        pictures={"predictions": os.path.relpath(picture, page)} if picture.is_file() else {},
        environment=facts,
    )


def read_trace(folder: Path) -> Trace:
    """What the rule compares exactly."""
    steps = _steps(folder)
    about = {"epoch", "step", "lr", "loss_scale", "ema_decay", "skipped", "batch"}
    return Trace(
        [row["lr"] for row in steps],
        [row["batch"] for row in steps],
        read_facts(folder).get("initial_weights", ""),
        {name: _number(steps[0], name, folder) for name in steps[0] if name not in about},
        [row["ema_decay"] for row in steps if "ema_decay" in row],
    )


def _runs_in(folder: Path) -> list[Path]:
    if (folder / "results.csv").is_file():
        return [folder]
    inside = sorted(path.parent for path in folder.glob("*/results.csv"))
    if not inside:
        raise PortdetError(f"{folder} is no finished run: no results.csv", fix="name a folder of `portdet train`")
    return inside


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as many parents as tell them apart."""
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise PortdetError("the same run is named twice", fix="name each run folder once")
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in paths]


def read_facts(folder: Path) -> dict[str, str]:
    """session.json: what the run said of itself; {} where it is not there."""
    return _read(folder / "session.json", TypeAdapter(dict[str, str]), {})


def read_versions(folder: Path) -> dict[str, str]:
    """Of the packages, from environment.json."""
    return _read(folder / "environment.json", TypeAdapter(_Environment), _Environment()).versions


@dataclass
class _Environment:
    versions: dict[str, str] = field(default_factory=dict)


def _read(path: Path, model: TypeAdapter[T], absent: T) -> T:
    return read_json(path, model, "move the file away", nan=True) if os.path.isfile(path) else absent


def _steps(folder: Path) -> list[dict[str, str]]:
    """The whole rows of steps.csv."""
    path = folder / "steps.csv"
    lines = read_csv(path, "move the file away") if os.path.isfile(path) else []
    for column in ("loss", "lr", "batch") if lines else ():
        if column not in lines[0]:
            raise PortdetError(f"no column {column} among {shown(lines[0])}", where=str(path), fix="move the file away")
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:] if len(line) == len(lines[0])]


def _number(row: Mapping[str, str], name: str, folder: Path) -> float:
    try:
        return float(row[name])
    except ValueError:
        raise PortdetError(f"{shown(name)} is {shown(row[name])}, no number", where=str(folder / "steps.csv")) from None
