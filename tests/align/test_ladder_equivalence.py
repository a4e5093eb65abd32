"""Equivalence tests against statsmodels, tables of t, published sizes, and simulated trainings whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from portdet.align.ladder.equivalence import curve_area, holm, paired, power, runs_needed
from portdet.errors import PortdetError

# five pairs of AP50, and what statsmodels 0.15.0 says of them: ttost_paired(x, y, -0.03, 0.03), and DescrStatsW(x - y)
X, Y = [0.612, 0.598, 0.641, 0.575, 0.603], [0.600, 0.611, 0.622, 0.570, 0.589]
D = [x - y for x, y in zip(X, Y, strict=True)]


def test_the_figures_are_those_of_statsmodels() -> None:
    found = paired(D, 0.03)
    assert found.p_low == pytest.approx(0.0012833161250640315, rel=1e-9)
    assert found.p_high == pytest.approx(0.00770503031225533, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((-0.004481101740778569, 0.019281101740778583), rel=1e-9)
    assert found.p_zero == pytest.approx(0.2549500185608009, rel=1e-9)
    assert found.verdict == "equivalent"


def test_three_pairs_by_hand() -> None:
    """1, 2, 3: mean 2, deviation 1, error 1/sqrt(3); Student's table has 2.920 for 2 degrees, one-sided 5 %."""
    found = paired([1, 2, 3], 4)
    assert (found.mean, found.sd) == (2, 1)
    assert found.high - found.mean == pytest.approx(2.920 / math.sqrt(3), abs=5e-4)
    # of 2 degrees of freedom the distribution is elementary: P(T > t) = 1/2 - t / (2 sqrt(2 + t^2))
    for p, t in ((found.p_low, 6 * math.sqrt(3)), (found.p_high, 2 * math.sqrt(3))):
        assert p == pytest.approx(0.5 - t / (2 * math.sqrt(2 + t * t)), rel=1e-9)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.01, -0.02, 0.0, 0.01], "equivalent"),
        ([0.05, -0.09, 0.15, -0.12], "inconclusive"),
        ([0.2, 0.21, 0.22, 0.19], "different"),
        ([-0.2, -0.21, -0.22, -0.19], "different"),
        ([0.05, 0.051, 0.049, 0.05], "equivalent"),  # a real difference, but a harmless one
        ([0.09, 0.11, 0.1, 0.12], "inconclusive"),  # real, and nobody knows whether above the margin
        ([0.0], "inconclusive"),
        ([0.5], "inconclusive"),
    ],
)
def test_verdicts(differences: list[float], verdict: str) -> None:
    assert paired(differences, 0.1).verdict == verdict


def test_the_interval_and_the_two_tests_say_the_same() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        found = paired(list(rng.normal(rng.uniform(-0.2, 0.2), 0.05, 4)), 0.1)
        assert (found.verdict == "equivalent") == (max(found.p_low, found.p_high) < 0.05)


def test_differences_without_scatter() -> None:
    same, moved, edge = paired([0.0] * 3, 0.1), paired([0.25] * 3, 0.1), paired([0.125] * 2, 0.125)
    assert (same.verdict, same.sd, same.p_zero, same.power, same.needed) == ("equivalent", 0.0, 1.0, 1.0, 2)
    assert (same.low, same.high, same.p_low, same.p_high) == (0.0, 0.0, 0.0, 0.0)
    assert (moved.verdict, moved.p_zero, moved.p_high) == ("different", 0.0, 1.0)
    assert edge.verdict == "inconclusive"


@pytest.mark.parametrize(("differences", "margin"), [([], 0.1), ([math.nan, 0.0], 0.1), ([0.0, 0.1], 0.0)])
def test_what_cannot_be_tested_is_an_error(differences: list[float], margin: float) -> None:
    with pytest.raises(PortdetError):
        paired(differences, margin)


def test_equal_systems_that_scatter_by_a_tenth_often_lie_further_apart() -> None:
    """The published 48 % and 16 % of a rule of one run each: the difference scatters by sqrt(2) times as much."""
    apart = np.diff(np.random.default_rng(1).normal(0, 0.1, (200_000, 2)))
    assert (np.abs(apart) > 0.1).mean() == pytest.approx(0.48, abs=0.005)
    assert (np.abs(apart) > 0.2).mean() == pytest.approx(0.16, abs=0.005)


@pytest.mark.parametrize(("sd", "runs"), [(0.1, 3), (0.15, 6), (0.2, 9)])
def test_published_runs_an_arm(sd: float, runs: int) -> None:
    """Margin 0.3, power 0.8, two independent arms whose runs scatter by `sd` each: the published 3, 6 and 9."""
    enough = [n for n in range(2, 20) if power(0.3, sd * math.sqrt(2 / n), 2 * n - 2) >= 0.8]
    assert enough[0] == runs


@pytest.mark.parametrize(("n", "sd", "true"), [(3, 0.05, 0.0), (5, 0.08, 0.0), (4, 0.04, 0.05), (8, 0.2, 0.0)])
def test_power_is_what_a_simulation_finds(n: int, sd: float, true: float) -> None:
    passed = _passed(n, sd, true, 40_000)
    assert power(0.1, sd / math.sqrt(n), n - 1, true) == pytest.approx(passed, abs=0.0075)  # three standard errors


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("sd", [0.01, 0.05, 0.2])
def test_a_harmful_difference_passes_in_at_most_one_of_twenty(n: int, sd: float) -> None:
    """Type I error, at the worst case: a true difference of just the margin."""
    assert _passed(n, sd, 0.1, 20_000) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 20_000)
    assert power(0.1, sd / math.sqrt(n), n - 1, 0.1) <= 0.05 + 1e-9


def test_a_harmless_difference_is_called_different_in_at_most_one_of_twenty() -> None:
    rng = np.random.default_rng(7)
    found = [paired(list(rng.normal(0.1, 0.05, 4)), 0.1).verdict == "different" for _ in range(2000)]
    assert np.mean(found) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


def test_the_interval_covers_the_truth_nine_times_in_ten() -> None:
    rng = np.random.default_rng(3)
    held = [(p := paired(list(rng.normal(0.03, 0.1, 5)), 0.1)).low <= 0.03 <= p.high for _ in range(2000)]
    assert np.mean(held) == pytest.approx(0.9, abs=0.02)


def test_runs_needed_is_the_least_number() -> None:
    for sd in (0.03, 0.1, 0.25):
        n = runs_needed(0.1, sd)
        assert power(0.1, sd / math.sqrt(n), n - 1) >= 0.8 > power(0.1, sd / math.sqrt(n - 1), n - 2)
    assert runs_needed(0.1, 0.0) == 2
    assert runs_needed(0.1, 10.0) == 0


def test_area_of_curves() -> None:
    assert curve_area([1, 2, 3], [0.0, 0.5, 1.0]) == 0.5
    assert curve_area([1, 2, 6], [0.0, 1.0, 1.0]) == pytest.approx(0.9)  # 0.5 + 4 of 5 epochs
    assert curve_area([4], [0.3]) == 0.3


def test_holm_is_statsmodels() -> None:
    """multipletests(method='holm') of statsmodels 0.15.0."""
    assert holm([0.01, 0.04, 0.03, 0.005, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.5])
    assert holm([]) == []


def _passed(n: int, sd: float, true: float, count: int) -> float:
    """Share of `count` simulated plans of n pairs that show equivalence at 0.1, by the tests' textbook form."""
    drawn = np.random.default_rng(n).normal(true, sd, (count, n))
    error = drawn.std(axis=1, ddof=1) / math.sqrt(n)
    t = stats.t.ppf(0.95, n - 1)
    return float(((drawn.mean(1) + 0.1 > t * error) & (0.1 - drawn.mean(1) > t * error)).mean())
