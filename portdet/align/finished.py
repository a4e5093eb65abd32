"""Finished training runs as an alignment shows them, and comparing them without training anything."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from portdet.align.against import judge_against
from portdet.align.rule import Trace
from portdet.errors import PortdetError
from portdet.evaluate.coco_map import NAMES
from portdet.files import write_text
from portdet.report import align_page, plots
from portdet.report.align_reference import Reference
from portdet.report.align_run import AlignRun, BackendRun
from portdet.report.align_tables import markdown
from portdet.report.results import read as read_results


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
    facts: dict[str, str] = _json(folder / "session.json")
    scored = next((row for row in reversed(rows) if row.keys() & set(NAMES)), {})
    picture = folder / "val_batch.jpg"
    return BackendRun(
        name=name,
        version=next((facts[key] for key in ("torch", "mindspore", "paddle", name) if key in facts), ""),
        device=facts.get("device", ""),
        seconds=float(rows[-1].get("time", 0.0)),
        epochs=[dict(row) for row in rows],
        step_losses=[float(row["loss"]) for row in _steps(folder)],
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
        _json(folder / "session.json")["initial_weights"],
        {name: float(value) for name, value in steps[0].items() if name not in about},
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


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _steps(folder: Path) -> list[dict[str, str]]:
    path = folder / "steps.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
