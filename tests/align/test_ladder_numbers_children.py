"""The teacher-forced levels through their processes, other backends as candidates; words and places of rows."""

from __future__ import annotations

import functools
import os
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from portdet.align.compare import Finding, Result
from portdet.align.ladder import shown
from portdet.align.ladder.looks import lenient, within_jumps
from portdet.align.ladder.numbers import NUMBERS, home, outcomes, words
from portdet.align.ladder.outcome import FALSE_ALARMS, GUILTY, Outcome, Row, from_plain, to_plain
from portdet.align.ladder.plan import Plan
from portdet.config import load
from portdet.errors import PortdetError
from tests.backends.harness import require

SMALL = ("imgsz=64", "data.train_count=24", "data.val_count=8", "batch=2", "model.width=0.03125", "train.threads=1",
         "epochs=1")  # fmt: skip


@functools.cache
def plan() -> Plan:
    config = load("yolov3_scenes", SMALL).model_dump()
    return Plan(config, tempfile.mkdtemp(), ("torch",), NUMBERS, points=(0, 1), self_runs=4, held_out=2)


said: list[str] = []


def healthy(backend: str) -> dict[str, Outcome]:
    require("torch")
    require(backend)
    said.clear()
    found = outcomes(plan(), backend, said.append)
    assert [*found] == [*NUMBERS]
    for level, outcome in found.items():
        assert outcome.passed, outcome.words
        assert outcome.level == level
        assert outcome.backend == backend
        assert outcome.ratio < 10
        assert from_plain(to_plain(outcome)) == outcome
    count = Counter(row.name.partition("/")[0] for row in found["grad"].rows)
    assert count == {"grad": 114}
    assert {row.step for row in found["steps"].rows} == {-1, 1}
    assert {row.name for row in found["weights"].rows if row.step < 0} == {
        "rule/weights", "rule/device", "rule/mode", "rule/dtype",
    }  # fmt: skip
    return found


def test_paddle_is_the_same() -> None:
    found = healthy("paddle")
    assert found["step"].checked > found["grad"].checked
    assert any(line.startswith("paddle at step 1: ") for line in said)


@pytest.mark.slow
def test_mindspore_is_the_same() -> None:
    healthy("mindspore")


@pytest.mark.slow
def test_the_reference_tells_its_false_alarms() -> None:
    require("torch")
    found = outcomes(plan(), "torch", said.append)
    assert [*found] == ["steps"]
    assert [row.name for row in found["steps"].rows] == ["held-out/0/0", "held-out/1/0"]
    assert found["steps"].passed
    assert found["steps"].facts[FALSE_ALARMS] == "0 of 2 healthy runs raise an alarm (95 %: below 77.6% of all)"


@pytest.mark.slow
def test_ppyolo_with_its_noise_and_scores_is_the_same_on_paddle() -> None:
    """Its deformable convolution is a kernel of Paddle's, in which torch calls modules."""
    require("torch")
    require("paddle")
    config = load("ppyolo_scenes", ["imgsz=96", "data.train_count=24", "batch=4", "train.threads=1"]).model_dump()
    small = replace(plan(), config=config, folder=tempfile.mkdtemp(), points=(0, 2), self_runs=8)
    for level, outcome in outcomes(small, "paddle", said.append).items():
        assert outcome.passed, (level, outcome.words)


def test_a_backend_that_nobody_has_is_an_error() -> None:
    with pytest.raises(PortdetError, match="unknown backend 'tensorflow'"):
        outcomes(replace(plan(), levels=("forward",), points=(0,), folder=tempfile.mkdtemp(), reference="tensorflow"),
                 "torch", said.append)  # fmt: skip


# ------------------------------------------------------------------ rows and words
@pytest.mark.parametrize(
    ("name", "step", "asked", "level"),
    [
        ("grad/a", 0, NUMBERS, "grad"),
        ("grad/a", 5, NUMBERS, "steps"),
        ("grad/a", 0, ("forward", "steps"), "steps"),
        ("rule/lr", -1, NUMBERS, "steps"),
        ("rule/lr", 0, NUMBERS, "step"),
        ("rule/slots", -1, NUMBERS, "step"),
        ("rule/batch", 0, ("loss", "grad"), "loss"),
        ("rule/batch", 2, NUMBERS, "steps"),
        ("rule/weights", -1, ("forward",), "forward"),
        ("rule/steps", -1, ("forward",), "forward"),
    ],
)
def test_every_row_has_its_level(name: str, step: int, asked: tuple[str, ...], level: str) -> None:
    assert home(Row(name, "same", step=step), asked) == level


def test_words_name_the_first_guilty_row_and_its_step() -> None:
    rows = [
        Row("rule/batch", "same", step=5),
        Row("forward/a", "noise", step=5, ratio=0.8),
        Row("grad/c", "kink", step=5, ratio=4e3),
        Row("grad/b", "different", "lies apart by much", step=5, ratio=1e4),
        Row("step/b", "different", "lies apart by much", step=5, ratio=1e3),
    ]
    assert words(rows, 16) == (
        "Different at step 5, first in grad/b: it lies apart by much. All 1 before it agree (largest cross/self ratio "
        "0.8). Of the 1 after it 1 differ too. 1 tensor was apart on one batch alone (kinks)."
    )
    assert words(rows[:3], 16) == (
        "The same: all 1 tensors within 10 times the self-noise; largest cross/self ratio 0.8 (forward/a). 1 tensor "
        "was apart on one batch alone (kinks)."
    )
    broken = Row("rule/lr", "broken", "is 0.2 instead of 0.1", step=2)
    assert words([broken, *rows], 16) == "Different: lr is 0.2 instead of 0.1 at step 2."
    assert words([], 16) == "Nothing was looked at."
    inexact = Row("step/weights/n.running_mean", "doubtful", max_rel=8e-6, ratio=34.0)
    assert words([rows[1], inexact], 16) == (
        "The same: all 1 tensors within 10 times the self-noise; largest cross/self ratio 0.8 (forward/a). 1 batch "
        "statistics are summed less exactly than the reference sums them (at most 8.0e-06 apart, 34 times the "
        "self-noise, in step/weights/n.running_mean); 1.5e-05 is allowed."
    )
    assert "broken" in GUILTY


def result(**apart: float) -> Result:
    names = {"grad_a": "grad/a", "grad_b": "grad/b", "state": "step/weights/a", "mean": "step/weights/n.running_mean"}
    return Result([Finding(names[key], "different", max_rel=value) for key, value in apart.items()])


JUMPS = {"grad/a": 0.01, "grad/b": 1e-6, "step/weights/a": 0.01}


def test_jumps_of_the_reference_itself_excuse_gradients_and_what_comes_of_them() -> None:
    suspects = {"grad/a", "step/weights/a"}
    jumped = result(grad_a=0.02, state=0.02)
    assert within_jumps([jumped] * 3, suspects, JUMPS) == suspects
    assert within_jumps([jumped, jumped, result(grad_a=0.05, state=0.02)], suspects, JUMPS) == set()
    assert within_jumps([jumped] * 3, suspects, {}) == set()


def test_a_fault_of_the_optimiser_is_not_excused() -> None:
    """Its gradients are the reference's: that the state jumps elsewhere is no excuse."""
    alone = result(state=0.02)
    assert within_jumps([alone] * 3, {"step/weights/a"}, JUMPS) == set()
    kinked = result(grad_a=0.02, state=0.02)
    assert within_jumps([kinked, kinked, alone], {"step/weights/a"}, JUMPS) == set()


def test_a_gradient_that_never_jumps_is_not_excused() -> None:
    assert within_jumps([result(grad_b=1e-5)] * 3, {"grad/b"}, JUMPS) == set()


@pytest.mark.parametrize(("apart", "status"), [(8.4e-6, "doubtful"), (2e-5, "different")])
def test_a_less_exact_mean_of_many_values_is_no_fault(apart: float, status: str) -> None:
    assert lenient(result(mean=apart)).findings[0].status == status
    assert lenient(result(state=apart)).findings[0].status == "different"


# ------------------------------------------------------------------ children
def test_a_childs_lines_are_shown_and_the_frameworks_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    log = tmp_path / "logs" / "child.log"
    monkeypatch.setenv("PORTDET_TEST_CHANGED", "by a framework")
    assert shown.run_shown("tests.align.shown_child", "work", lines.append, log) == ""
    assert os.environ["PORTDET_TEST_CHANGED"] == "by a framework"
    assert lines == ["half", "whole"]
    assert "a framework's warning" in log.read_text()
    with pytest.raises(PortdetError, match="no such thing"):
        shown.run_shown("tests.align.shown_child", "fail", lines.append, log)
    assert lines == ["half", "whole", "half"]
