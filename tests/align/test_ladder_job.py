"""The ladder itself, on levels that take no time: order, what is kept and tried again, verdicts, exit codes, files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as xml
from dataclasses import replace
from pathlib import Path

import pytest

from portdet.align.ladder.job import LadderJob
from portdet.align.ladder.numbers import NUMBERS
from portdet.align.ladder.outcome import LEVELS, Outcome, Row, load, save
from portdet.align.ladder.plan import Plan
from portdet.align.ladder.tables import console_table, markdown
from portdet.align.ladder.verdict import exit_code, judged
from portdet.report.ladder_data import LadderReport
from tests.align.ladder_fakes import Fakes, plan

FAKES = Path(__file__).with_name("ladder_fakes.py")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    made = Fakes()
    made.install(monkeypatch.setattr)
    return made


def climbed(asked: Plan, said: list[str] | None = None) -> LadderReport:
    return LadderJob(asked, (said if said is not None else []).append).run()


def test_all_levels_of_all_backends_in_order(fakes: Fakes, tmp_path: Path) -> None:
    said: list[str] = []
    report = climbed(plan(tmp_path), said)
    single = [("ops", "torch"), ("ops", "paddle"), ("steps", "torch"), *((level, "paddle") for level in NUMBERS)]
    rest = [("free", "paddle"), ("train", "torch"), ("train", "paddle"), ("ranks", "torch"), ("ranks", "paddle")]
    assert fakes.asked == [*single, *rest, ("power", "torch")]
    assert {path.name for path in tmp_path.iterdir()} >= {
        "plan.json", "align.json", "align.html", "align.md", "junit.xml", "levels", "training.json",
    }  # fmt: skip
    assert report.passed
    assert exit_code(report) == 0
    assert report.verdict.startswith("Equivalent. torch, paddle: nothing differs beyond noise in 30 checks")
    assert "largest cross/self ratio 3" in report.verdict
    assert "grad, paddle: equivalent, 2 checked, cross/self at most 3: as the fake has it (0.5 s)" in said
    kept = LadderReport.from_json((tmp_path / "align.json").read_text())
    assert kept == report
    assert kept.training is not None
    assert [run.name for run in kept.training.backends] == ["torch", "paddle"]


@pytest.mark.parametrize(
    ("level", "backend", "fault", "code", "words"),
    [
        ("grad", "paddle", "different", 1, r"Different. paddle, level grad is the lowest that differs: the gradient of "
         r"the weight of conv1 at training step 0 lies apart by 0.5. Below it ops, weights, forward, loss agree."),
        ("ops", "torch", "broken", 1, r"Different. torch, level ops"),
        ("ranks", "paddle", "different", 1, r"Different. paddle, level ranks"),
        ("free", "paddle", "unjudged", 2, r"Inconclusive. What was compared agrees \(14 of 15\). paddle, level free "
         r"could not decide: as the fake has it."),
        ("power", "torch", "missed", 2, "torch, level power could not decide"),
        ("steps", "torch", "different", 2, "torch, level steps could not decide"),  # held-out runs: a false alarm
        ("ranks", "paddle", "dies", 3, r"Could not run to the end: paddle \(ranks\)."),
        ("forward", "paddle", "bug", 3, r"Could not run to the end: paddle \(weights, forward, loss, grad, step, st"),
    ],
)  # fmt: skip
def test_the_verdict_and_its_exit_code(
    fakes: Fakes, tmp_path: Path, level: str, backend: str, fault: str, code: int, words: str
) -> None:
    fakes.faults[level, backend] = fault
    report = climbed(plan(tmp_path))
    assert exit_code(report) == code
    assert report.passed is {0: True, 1: False}.get(code)
    assert re.search(words, report.verdict), report.verdict


def test_a_crash_loses_nothing_of_the_others_and_is_tried_again(fakes: Fakes, tmp_path: Path) -> None:
    fakes.faults["grad", "mindspore"] = "dies"
    asked = plan(tmp_path, backends=("torch", "mindspore", "paddle"))
    report = climbed(asked)
    crashed = report.of("grad", "mindspore")
    assert crashed is not None
    assert crashed.crashed.endswith("it printed last:\n    goodbye")
    assert {o.backend for o in report.outcomes if o.crashed} == {"mindspore"}
    assert all((o := report.of(level, "paddle")) is not None and o.passed for level in LEVELS if level != "power")
    assert "goodbye" in (tmp_path / "align.md").read_text()
    fakes.faults.clear()
    fakes.asked.clear()
    again = climbed(Plan.load(tmp_path))
    assert fakes.asked == [(level, "mindspore") for level in NUMBERS]
    assert exit_code(again) == 0


def test_a_different_backend_does_not_hide_another_that_crashed(fakes: Fakes, tmp_path: Path) -> None:
    fakes.faults |= {("loss", "paddle"): "different", ("ops", "torch"): "dies"}
    report = climbed(plan(tmp_path))
    assert report.passed is False
    assert exit_code(report) == 3
    assert "Different. paddle, level loss" in report.verdict
    assert "Could not run to the end: torch (ops)." in report.verdict


def test_a_killed_ladder_goes_on_where_it_was(fakes: Fakes, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, FAKES, tmp_path], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("--- ranks"):
                break
        child.kill()
    assert not (tmp_path / "align.json").exists()
    said: list[str] = []
    report = climbed(Plan.load(tmp_path), said)
    assert fakes.asked == [("ranks", "torch"), ("ranks", "paddle")]
    assert exit_code(report) == 0
    assert sum(line.endswith("(done before)") for line in said) == 2


def test_an_interrupt_keeps_what_is_finished_and_says_how_to_go_on(fakes: Fakes, tmp_path: Path) -> None:
    fakes.faults["ranks", "torch"] = "interrupt"
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        climbed(plan(tmp_path, ("ops", "ranks")), said)
    assert said[-1] == f"stopped; what is finished is kept. To go on: portdet align --resume {tmp_path}"
    assert load(tmp_path / "levels" / "ops" / "paddle.json").passed


def test_levels_that_are_added_run_alone(fakes: Fakes, tmp_path: Path) -> None:
    climbed(plan(tmp_path, ("ops",)))
    fakes.asked.clear()
    report = climbed(replace(Plan.load(tmp_path), levels=("ops", "loss", "free")))
    assert {level for level, _ in fakes.asked} == {"loss", "free"}
    assert report.levels == ["ops", "loss", "free"]
    assert exit_code(report) == 0


def test_junit_counts_what_it_holds(fakes: Fakes, tmp_path: Path) -> None:
    fakes.faults |= {("grad", "paddle"): "different", ("free", "paddle"): "unjudged", ("ranks", "paddle"): "dies"}
    climbed(plan(tmp_path))
    many = load(tmp_path / "levels" / "grad" / "paddle.json")
    save(tmp_path / "levels" / "grad" / "paddle.json", replace(many, rows=[many.rows[1]] * 70, words="a \x07 bell"))
    climbed(Plan.load(tmp_path))
    root = xml.parse(tmp_path / "junit.xml").getroot()
    assert [suite.get("name") for suite in root] == list(LEVELS)
    suites = {suite.get("name"): suite for suite in root}
    counts = {name: [int(suite.get(key, -1)) for key in ("tests", "failures", "errors", "skipped")]
              for name, suite in suites.items()}  # fmt: skip
    assert counts["ops"] == [2, 0, 0, 0]
    assert counts["grad"] == [1 + 50, 1 + 50, 0, 0]
    assert counts["free"] == [1, 0, 0, 1]
    assert counts["ranks"] == [2, 0, 1, 0]
    assert int(root.get("tests", 0)) == sum(count[0] for count in counts.values())
    assert suites["grad"][0].find("failure").get("message") == "a ? bell"  # type: ignore[union-attr]
    assert float(suites["ops"].get("time", 0)) == pytest.approx(1.0)
    error = next(iter(suites["ranks"].iter("error")))
    assert error.text is not None
    assert error.text.endswith("goodbye")


def test_tables_show_each_backend_and_its_first_guilty_place(fakes: Fakes, tmp_path: Path) -> None:
    fakes.faults["grad", "paddle"] = "different"
    report = climbed(plan(tmp_path, ("ops", "grad")))
    text = markdown(report)
    assert (
        "| grad | equivalent, 2 checked, cross/self at most 3 | DIFFERENT, 2 checked, 1 guilty, cross/self at most "
        in text
    )
    assert text.startswith("**Different. paddle, level grad")
    table = console_table(report)
    assert [column.header.plain for column in table.columns[1:]] == ["torch", "paddle"]  # type: ignore[union-attr]
    assert table.row_count == 2


def test_what_is_allowed_is_counted_in_the_verdict() -> None:
    rows = [
        Row("step/weights/a.running_mean", "doubtful", ratio=34.0),
        Row("step/weights/a.weight", "noise", ratio=2.0),
    ]
    found = Outcome.of("step", "paddle", rows)
    found.ratio = 2.0
    passed, words = judged(["step"], [found], "torch")
    assert passed
    assert words.endswith("(step; largest cross/self ratio 2, 1 less exact batch statistics apart).")


def test_numbers_that_json_lacks_come_back(tmp_path: Path) -> None:
    found = Outcome.of("grad", "paddle", [Row("grad/a", "different", ratio=float("inf"), max_rel=float("nan"))])
    save(tmp_path / "x.json", found)
    json.loads((tmp_path / "x.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert load(tmp_path / "x.json").rows[0].ratio == float("inf")
