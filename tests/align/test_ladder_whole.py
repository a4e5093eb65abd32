"""The ladder on real backends, tiny: the same command gives the same numbers, and a fault is named at its level."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from portdet.align.ladder.job import LadderJob
from portdet.align.ladder.plan import Plan
from portdet.align.ladder.verdict import exit_code
from portdet.config import load
from tests.backends.harness import require
from tests.conformance.vendor_case import install, plant

TINY = ("imgsz=64", "scene_size=64", "train_count=16", "val_count=4", "batch=4", "model.width=0.0625", "workers=0",
        "threads=1", "epochs=1")  # fmt: skip
LEVELS = ("weights", "forward", "loss", "grad", "step", "steps")
PLACES = {"seconds", "folder", "command"}  # and times, which no two runs share


def plan(folder: Path, *backends: str) -> Plan:
    values = load("yolov3_scenes", TINY).model_dump(mode="json")
    return Plan(values, str(folder), backends, LEVELS, points=(0, 2), self_runs=4, held_out=2)


def figures(value: Any) -> Any:
    """All of align.json but seconds and paths."""
    if isinstance(value, dict):
        return {key: figures(item) for key, item in value.items() if key not in PLACES}
    return [figures(item) for item in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_the_same_command_gives_the_same_numbers(tmp_path: Path) -> None:
    require("torch")
    require("paddle")
    found = []
    for name in ("one", "two"):
        report = LadderJob(plan(tmp_path / name, "torch", "paddle"), print).run()
        assert exit_code(report) == 0, report.verdict
        found.append(figures(json.loads((tmp_path / name / "align.json").read_text())))
    assert found[0] == found[1]
    ratios = [row["ratio"] for outcome in found[0]["outcomes"] for row in outcome["rows"]]
    assert len(ratios) > 1000
    assert any(0 < ratio < 10 for ratio in ratios)


@pytest.mark.slow
def test_a_fault_is_named_at_the_lowest_level_that_shows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("torch")
    install(tmp_path, monkeypatch)
    plant("momentum of the norm", monkeypatch)
    report = LadderJob(plan(tmp_path / "run", "torch", "broken"), print).run()
    assert exit_code(report) == 1
    assert report.verdict.startswith("Different. broken, level step is the lowest that differs: the running mean of ")
    assert "Below it weights, forward, loss, grad agree." in report.verdict
    assert "Above it steps differs too." in report.verdict
