"""The bank of planted faults against the gates, on torch: each is caught, and its place named first.

The whole bank meets the comparison on a tiny YOLOv3 in the middle of its training; some faults of each kind go through
the very code of `portdet align --level power`. Whole detectors, other backends and kinks: the slow tests.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from portdet.align.ladder import power
from portdet.align.ladder.fault_planting import Fault, Planting
from portdet.align.ladder.fault_rules import RULES, flagged
from portdet.align.ladder.outcome import Outcome, Planted, from_plain, to_plain
from portdet.align.ladder.plan import Plan
from portdet.config import load
from tests.align.compare_case import CALM, KINKED, bench
from tests.align.planted import first_named, planted
from tests.backends.harness import require


@pytest.mark.parametrize(("fault", "planting"), planted(), ids=lambda one: getattr(one, "name", ""))
def test_a_planted_fault_is_caught_and_its_place_named_first(fault: Fault, planting: Planting) -> None:
    require("torch")
    first = first_named(bench(CALM), planting)
    assert planting.names(first), f"{first or 'nothing'} instead of {planting.expected}"


def test_most_of_the_bank_fits_the_tiny_yolov3() -> None:
    assert len(planted()) >= 55


@pytest.mark.slow
def test_faults_are_caught_among_kinks_too() -> None:
    """One batch alone, without the second look: gradients may be named first for a fault that shows after them."""
    require("torch")
    missed = [fault.name for fault, planting in planted() if not first_named(bench(KINKED), planting)]
    assert missed == []


# ---------------------------------------------------------------------- the level
SMALL = ["imgsz=64", "data.train_count=16", "batch=2", "model.width=0.0625", "train.threads=1"]
SOME = {
    "epsilon of one norm": "forward",
    "a branch without gradient": "grad",
    "labels smoothed": "loss",
    "average not restored": "steps",
    "Nesterov": "step",
    "learning rate of the step before": "rules",
}


def level(name: str, folder: Path, backend: str, only: list[str], *overrides: str) -> Outcome:
    config = load(name, list(overrides))
    plan = Plan(
        config.model_dump(), str(folder), ("torch", backend), ("power",), self_runs=16 if not only else 4,
        faulty=backend, extra={"faults": only},
    )  # fmt: skip
    lines: list[str] = []
    outcome = power.outcome(plan, lines.append)
    assert sum(line.startswith("fault ") for line in lines) == outcome.checked
    print(outcome.words, outcome.facts)
    return outcome


def test_the_level_itself(tmp_path: Path) -> None:
    require("torch")
    outcome = level("yolov3_scenes", tmp_path, "torch", list(SOME), *SMALL)
    assert outcome.passed
    assert (outcome.level, outcome.backend, outcome.checked, outcome.guilty) == ("power", "torch", len(SOME), 0)
    assert {fault.name: fault.gate for fault in outcome.planted} == SOME
    assert [fault.one_step for fault in outcome.planted if fault.name == "average not restored"] == [False]
    assert outcome.facts["caught"] == "6 of 6"
    assert outcome.facts["place named first"] == "6 of 6"
    by = {fault.name: fault.rules for fault in outcome.planted}
    assert by["labels smoothed"]["allclose 1e-4 (troubleshooter)"]
    assert not any(by["Nesterov"].values())  # no published rule looks at what a step leaves
    assert from_plain(to_plain(outcome)) == outcome


@pytest.mark.slow
@pytest.mark.parametrize("name", ["yolov3_scenes", "ppyolo_scenes"])
def test_the_whole_bank_on_both_detectors(name: str, tmp_path: Path) -> None:
    require("torch")
    outcome = level(name, tmp_path, "torch", [], "imgsz=96", "data.train_count=32", "batch=4")
    assert outcome.passed, [fault for fault in outcome.planted if not fault.named]
    assert outcome.checked >= 55


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["mindspore", "paddle"])
def test_the_whole_bank_on_other_backends(backend: str, tmp_path: Path) -> None:
    require("torch")
    require(backend)
    outcome = level("yolov3_scenes", tmp_path, backend, [], *SMALL)
    assert outcome.passed, [fault for fault in outcome.planted if not fault.named]


# ---------------------------------------------------------------------- verdicts and published rules
def verdict(caught: int, named: int, total: int, quick: int = 30) -> Outcome:
    """The first `caught` are caught, the first `named` named, and the first `quick` show in one step."""
    rules = [dict.fromkeys(RULES, n < 2) for n in range(total)]
    faults = [
        Planted(f"fault {n}", "loss/xy", n < caught, n < named, "loss/xy", "loss", n < quick, rules[n])
        for n in range(total)
    ]
    return power.judged("torch", faults, [], [dict.fromkeys(RULES, False)] * 3, 1.0)


@pytest.mark.parametrize(
    ("caught", "named", "passed"), [(40, 40, True), (38, 35, True), (37, 37, False), (40, 36, True), (40, 35, False)]
)
def test_the_verdict_needs_95_caught_and_90_named(caught: int, named: int, passed: bool) -> None:
    outcome = verdict(caught, named, 40)
    assert outcome.passed is passed
    assert outcome.guilty == 40 - caught
    assert outcome.facts["allclose 1e-3"] == "2 of 40, and 0 of 3 healthy runs"


def test_no_fault_that_shows_in_one_step_may_be_missed() -> None:
    assert verdict(39, 39, 40, quick=39).passed
    outcome = verdict(39, 39, 40, quick=40)
    assert not outcome.passed
    assert outcome.facts["caught of those that show in one step"] == "39 of 40"
    assert "missed one that shows in one step: fault 39" in outcome.words


def test_no_fault_is_no_verdict() -> None:
    assert verdict(0, 0, 0).passed is None


def test_published_rules_see_what_they_are_known_to_see() -> None:
    """A part in 3 million is enough for means to 1e-7, one in 2000 for 1e-4; a step is seen by none."""
    random = np.random.RandomState(0)
    names = ("forward/a", "forward/predict", "loss/loss", "grad/a", "step/weights/a")
    base = {name: random.uniform(1, 2, (50,)).astype(np.float32) for name in names}
    assert not any(flagged(base, base).values())
    least = flagged({**base, "forward/a": base["forward/a"] * np.float32(1 + 3.6e-7)}, base)
    assert [rule for rule, said in least.items() if said] == ["means to 1e-7 (PaDiff)"]
    part = flagged({**base, "grad/a": base["grad/a"] * np.float32(1 + 5e-4)}, base)
    assert part["allclose 1e-4 (troubleshooter)"]
    assert not part["allclose 1e-3"]
    assert not part["mean difference 1e-6 (reprod_log)"]  # it looks at outputs and losses
    assert not any(flagged({**base, "step/weights/a": base["step/weights/a"] * 2}, base).values())
    assert all(flagged({**base, "loss/loss": base["loss/loss"] * np.float32(np.nan)}, base).values())
