"""The rule of `portdet align`: what passes, and that each planted difference turns it red at the right check."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from portdet.align.rule import Trace, judge
from portdet.cli.align import exit_code
from portdet.report import align_page
from portdet.report.align_run import AlignRun, BackendRun, final_score

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
    run = runs(0.6, -1.0)
    assert failed(run, [TRACE, TRACE]) == ["final AP50"]
    assert (run.passed, exit_code(run)) == (False, 1)
    assert "mindspore has none" in run.verdict


def test_the_final_score_is_the_mean_of_the_last_three() -> None:
    run = runs(0.0)
    run.backends[0].epochs = [{"epoch": i, "AP50": value} for i, value in enumerate((0.1, 0.2, 0.3, 0.7), 1)]
    assert final_score(run.backends[0]) == pytest.approx(0.4)


def curves(*rows: tuple[float, ...], start: int = 1) -> AlignRun:
    """One row an epoch, one column a backend."""
    run = runs(*rows[0])
    for backend, values in zip(run.backends, zip(*rows, strict=True), strict=True):
        backend.epochs = [{"epoch": e, "AP50": value, "AP": value / 2} for e, value in enumerate(values, start)]
    return run


DEMO = ((0.718, 0.647, 0.706), (0.726, 0.674, 0.714), (0.734, 0.691, 0.730))  # the README's last three epochs


def test_the_demo_passes_and_shows_one_number(tmp_path: Path) -> None:
    """The means: torch (.718 + .726 + .734) / 3 = .726, MindSpore .6707, Paddle .7167."""
    run = curves(*DEMO, start=12)
    assert failed(run, [TRACE] * 3) == []
    assert (run.passed, exit_code(run)) == (True, 0)
    assert "torch 0.726, mindspore 0.671, paddle 0.717" in run.verdict
    assert shown_in_cards(run, tmp_path) == ["0.726", "0.671", "0.717"]
    assert "AP50, mean of the last 3 validated epochs" in align_page.page(run, tmp_path)


def shown_in_cards(run: AlignRun, folder: Path) -> list[str]:
    return re.findall(r'<div class="big">([^<]*)</div>', align_page.page(run, folder))


@pytest.mark.parametrize(
    ("run", "margin", "why"),
    [
        # found by a user: both far below the margin, and one nearly twice the other
        (curves(*[(0.028, 0.048)] * 3), 0.1, "torch's 0.028 is not above the margin 0.1"),
        (curves(*[(0.099, 0.099)] * 3), 0.1, "a model that learns nothing would pass"),
        (curves(*[(0.0, 0.0, 0.0)] * 9), 0.1, "not above the margin"),
        (curves(*[(0.5, 0.5)] * 3), 0.6, "not above the margin 0.6"),
        (curves((0.6, 0.58)), 0.1, "only 1 of the 3 validated epochs"),
        (curves((0.6, 0.58), (0.61, 0.6)), 0.1, "only 2 of the 3 validated epochs"),
        (curves(*[(-1.0, -1.0)] * 3), 0.1, "no run has an AP50"),
        (curves(*[(0.6,)] * 3), 0.1, "no other backend to compare it with"),
    ],
)
def test_what_cannot_tell_is_undecided(run: AlignRun, margin: float, why: str, tmp_path: Path) -> None:
    assert failed(run, [TRACE] * len(run.backends), margin) == ["final AP50"]
    assert (run.passed, exit_code(run)) == (None, 2)
    assert run.verdict.startswith("Undecided: final AP50: ")
    assert why in run.verdict
    page = align_page.page(run, tmp_path)
    assert "? Undecided" in page
    assert "✓ Passed" not in page


def test_initial_weights_that_find_much_count() -> None:
    """Trained on from .68: .726 is no more than what a port that learns nothing ends with."""
    run = curves(*DEMO, start=12)
    run.start = 0.68
    assert failed(run, [TRACE] * 3) == ["final AP50"]
    assert (run.passed, exit_code(run)) == (None, 2)
    assert "torch's 0.726 is not more than the margin 0.1 above the 0.680 that the initial weights have" in run.verdict
    run.start = None
    assert failed(run, [TRACE] * 3) == ["final AP50"]
    assert "the AP50 of the initial weights is not known" in run.verdict
    run.start = 0.6
    assert failed(run, [TRACE] * 3) == []


@pytest.mark.parametrize(
    ("run", "margin"),
    [(curves(*[(0.11, 0.2)] * 3), 0.1), (curves(*[(0.11, 0.011)] * 3), 0.1), (curves(*DEMO), 0.1)],
)
def test_what_a_dead_model_would_fail_is_decided(run: AlignRun, margin: float) -> None:
    """The same first backend beside one that finds nothing is different."""
    assert failed(run, [TRACE] * len(run.backends), margin) == []
    for row in run.backends[-1].epochs:
        row["AP50"] = 0.0
    assert failed(run, [TRACE] * len(run.backends), margin) == ["final AP50"]
    assert run.passed is False


def test_a_difference_counts_where_agreement_would_not() -> None:
    """Few epochs, or a low score, do not hide that the others are far away; nor does it hide a failed check."""
    for run in (curves((0.6, 0.3)), curves(*[(0.02, 0.2)] * 3)):
        assert failed(run, [TRACE, TRACE]) == ["final AP50"]
        assert run.passed is False
    run = curves(*[(0.02, 0.02)] * 3)
    judge(run, [TRACE, replace(TRACE, weights="beef")], 0.1)
    assert (run.passed, exit_code(run)) == (False, 1)
    assert run.verdict.startswith("Different: initial weights")
