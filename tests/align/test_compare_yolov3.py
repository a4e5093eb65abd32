"""The comparison on a YOLOv3 in PyTorch: healthy runs pass. What it does to planted faults: test_ladder_power.py.

Of a fault and of healthy runs the comparison sees the same thing: three runs under one-ulp changes of state and images
that no self-run had.
"""

from __future__ import annotations

import pytest
import torch

from portdet.align.compare import Result, compare, false_alarms
from tests.align.compare_case import CALM, KINKED, bench, observed, recipe

HELD_OUT = 30


def held_out(draw: int, number: int, together: int = 3) -> list[Result]:
    it = bench(draw)
    starts = range(1000, 1000 + number * together, together)
    return [it.compare(it.session, range(start, start + together)) for start in starts]


def test_healthy_runs_pass() -> None:
    for result in held_out(CALM, 4):
        assert result.passed, result.words()
        assert max(finding.ratio for finding in result.findings) < 4
    assert [*result.levels()] == ["weights", "forward", "loss", "grad", "step"]


def test_the_same_bits_are_the_same() -> None:
    """Also where somebody else in the process has changed the number of threads since the session was opened."""
    it = bench(CALM)
    torch.set_num_threads(2)
    result = compare(it.reference, [observed(it.session, it.one)], it.envelope)
    assert {finding.status for finding in result.findings} == {"same"}
    assert torch.get_num_threads() == 1


def test_errors_against_float64_are_alike() -> None:
    """torch in float64 as the truth: reference and candidate are equally far from it."""
    it = bench(CALM)
    truth = observed(it.open(recipe(it.one.detector), precision="float64"), it.one)
    result = compare(it.reference, it.run(it.session, range(600, 603)), it.envelope, float64=truth)
    forward = [f for f in result.findings if f.name.startswith("forward/")]
    assert len(forward) > 100
    for finding in forward:
        assert finding.error is not None
        assert finding.reference_error is not None
        assert finding.error < 3e-6
        assert finding.error < 4 * max(finding.reference_error, 2**-23)


def test_float64_is_another_width_but_the_same_detector() -> None:
    it = bench(CALM)
    truth = observed(it.open(recipe(it.one.detector), precision="float64"), it.one)
    assert compare(it.reference, [truth], it.envelope, widths=False).passed
    broken = compare(it.reference, [truth], it.envelope).first
    assert broken is not None
    assert broken.words == "is float64 instead of float32"


@pytest.mark.slow
@pytest.mark.parametrize("draw", [CALM, KINKED])
def test_no_false_alarm_in_30_held_out_runs(draw: int) -> None:
    results = held_out(draw, HELD_OUT)
    alarms = sum(not result.passed for result in results)
    print(false_alarms(alarms, HELD_OUT), max(f.ratio for r in results for f in r.findings))
    assert alarms == 0


@pytest.mark.slow
def test_without_the_median_kinks_raise_alarms() -> None:
    """Where rounding moves an activation across zero in a run that no self-run had, one run alone differs."""
    alarms = [result for result in held_out(KINKED, 3 * HELD_OUT, 1) if not result.passed]
    assert alarms
    assert max(f.ratio for f in alarms[0].findings) > 1000
