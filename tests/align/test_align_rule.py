"""The rule of `portdet align`: what passes, and that each planted difference turns it red at the right check."""

from __future__ import annotations

from dataclasses import replace

import pytest

from portdet.align.rule import Trace, final_ap50, judge
from portdet.report.align_run import AlignRun, BackendRun

TRACE = Trace(["0.1", "0.05"], ["aa", "bb"], "cafe", {"loss": 100.0, "xy": 3.0})


def runs(*finals: float) -> AlignRun:
    names = ("torch", "mindspore", "paddle")
    backends = [
        BackendRun(name, "1", "cpu", 1.0, [{"epoch": e, "AP50": ap, "AP": ap / 2} for e in (1, 2, 3)])
        for name, ap in zip(names, finals, strict=False)
    ]
    return AlignRun("demo", "", "", backends)


def failed(run: AlignRun, traces: list[Trace], margin: float = 0.1) -> list[str]:
    judge(run, traces, margin)
    return [check.name for check in run.checks if not check.passed]


def test_equal_runs_pass_and_the_verdict_names_the_final_scores() -> None:
    run = runs(0.6, 0.55, 0.58)
    assert failed(run, [TRACE, TRACE, replace(TRACE, first_losses={"loss": 100.0001, "xy": 3.000001})]) == []
    assert run.passed
    assert "torch 0.600, mindspore 0.550, paddle 0.580" in run.verdict


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ({"weights": "beef"}, "initial weights"),
        ({"learning_rates": ["0.1", "0.049"]}, "learning rates"),
        ({"batches": ["aa", "cc"]}, "batches"),
        ({"batches": ["aa", "bb", "cc"]}, "batches"),
        ({"first_losses": {"loss": 100.02, "xy": 3.0}}, "losses of the first step"),
        ({"first_losses": {"loss": float("nan"), "xy": 3.0}}, "losses of the first step"),
    ],
)
def test_a_planted_difference_fails_its_check(fault: dict[str, object], check: str) -> None:
    run = runs(0.6, 0.6)
    assert failed(run, [TRACE, replace(TRACE, **fault)]) == [check]  # type: ignore[arg-type]
    assert run.passed is False
    assert check in run.verdict


def test_a_difference_in_the_middle_backend_is_seen() -> None:
    run = runs(0.6, 0.6, 0.6)
    assert failed(run, [TRACE, replace(TRACE, first_losses={"loss": 101.0, "xy": 3.0}), TRACE]) == [
        "losses of the first step"
    ]


def test_the_first_differing_step_is_named() -> None:
    run = runs(0.6, 0.6)
    failed(run, [TRACE, replace(TRACE, batches=["aa", "cc"])])
    assert "first at step 2" in run.verdict


def test_final_scores_apart_by_more_than_the_margin_fail() -> None:
    assert failed(runs(0.6, 0.45), [TRACE, TRACE]) == ["final AP50"]
    assert failed(runs(0.6, 0.45), [TRACE, TRACE], margin=0.2) == []


def test_a_backend_without_scores_fails() -> None:
    assert failed(runs(0.6, -1.0), [TRACE, TRACE]) == ["final AP50"]


def test_the_final_score_is_the_mean_of_the_last_three() -> None:
    run = runs(0.0)
    run.backends[0].epochs = [{"epoch": i, "AP50": value} for i, value in enumerate((0.1, 0.2, 0.3, 0.7), 1)]
    assert final_ap50(run) == [pytest.approx(0.4)]
