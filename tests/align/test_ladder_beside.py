"""Two halves of a ladder beside each other: the same outcomes, crashes and interruptions as one after the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from portdet.align.ladder import beside
from portdet.align.ladder.job import LadderJob
from portdet.align.ladder.outcome import LEVELS, load
from portdet.align.ladder.plan import Plan
from portdet.align.ladder.verdict import exit_code
from tests.align.ladder_fakes import Fakes, plan
from tests.patience import until


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    made = Fakes()
    made.install(monkeypatch.setattr)
    monkeypatch.setattr(beside, "MODULE", "tests.align.beside_fakes")
    return made


def parallel(folder: Path, levels: tuple[str, ...] = LEVELS, **extra: Any) -> Plan:
    asked = plan(folder, levels)
    return replace(asked, parallel=True, extra={**asked.extra, "faults": {}, **extra})


def test_the_halves_are_the_whole(fakes: Fakes, tmp_path: Path) -> None:
    one = LadderJob(plan(tmp_path / "one"), print).run()
    fakes.asked.clear()
    said: list[str] = []
    two = LadderJob(parallel(tmp_path / "two"), said.append).run()
    assert {level for level, _ in fakes.asked} == set(LEVELS) - set(beside.LEVELS)
    assert [(o.level, o.backend, o.passed, o.words) for o in two.outcomes] == [
        (o.level, o.backend, o.passed, o.words) for o in one.outcomes
    ]
    assert (two.verdict, two.levels, exit_code(two)) == (one.verdict, list(LEVELS), 0)
    assert two.training == one.training
    assert Plan.load(tmp_path / "two").levels == LEVELS
    for unit in ("ops, torch", "train, paddle", "ranks, paddle", "grad, paddle", "power, torch"):
        assert sum(line.startswith(f"{unit}: ") for line in said) == 1


def test_what_is_alone_has_nothing_beside_it(fakes: Fakes, tmp_path: Path) -> None:
    for asked in (plan(tmp_path), parallel(tmp_path, ("ops", "train")), parallel(tmp_path, ("grad", "free"))):
        assert beside.halves(asked) == (asked, None)
    here, aside = beside.halves(parallel(tmp_path, ("ops", "grad", "ranks")))
    assert aside is not None
    assert (here.levels, aside.levels) == (("grad",), ("ops", "ranks"))


def test_a_crash_beside_loses_nothing_here(fakes: Fakes, tmp_path: Path) -> None:
    report = LadderJob(parallel(tmp_path, dies=True), print).run()
    assert {o.level for o in report.outcomes if o.crashed} == set(beside.LEVELS)
    assert all("ended with code 9" in o.crashed for o in report.outcomes if o.crashed)
    assert sum(o.passed is True for o in report.outcomes) == len(report.outcomes) - 6
    assert exit_code(report) == 3
    fakes.asked.clear()
    again = LadderJob(replace(Plan.load(tmp_path), extra={"faults": {"ranks paddle": "different"}}), print).run()
    assert fakes.asked == []
    assert exit_code(again) == 1
    assert "paddle, level ranks is the lowest that differs" in again.verdict


def test_a_crash_here_loses_nothing_beside(fakes: Fakes, tmp_path: Path) -> None:
    fakes.faults["grad", "paddle"] = "bug"
    report = LadderJob(parallel(tmp_path), print).run()
    assert {o.level for o in report.outcomes if o.passed} >= {*beside.LEVELS, "free", "power"}
    assert exit_code(report) == 3


def test_an_interrupt_stops_both(fakes: Fakes, tmp_path: Path) -> None:
    fakes.faults["power", "torch"] = "interrupt"
    asked = parallel(tmp_path, ("ops", "ranks", "power"), faults={"ranks torch": "waits"})
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if line.startswith("--- power"):  # until the other half waits in its second level
            until(lambda: any(said.startswith("--- ranks: torch") for said in lines), "the second level beside")

    with pytest.raises(KeyboardInterrupt):
        LadderJob(asked, say).run()
    assert lines[-1] == f"stopped; what is finished is kept. To go on: portdet align --resume {tmp_path}"
    assert load(tmp_path / "levels" / "ops" / "paddle.json").passed
    assert not (tmp_path / "levels" / "ranks").exists()
    assert "KeyboardInterrupt" in (tmp_path / "logs" / "beside.log").read_text()
