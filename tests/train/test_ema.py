"""EMA decays against published values, and evaluated averages against loops written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from portdet.config import EmaConfig
from portdet.errors import PortdetError
from portdet.train.ema import Ema, ema, trace

WEIGHTS = [np.array([float(i * i % 7), 2.0]) for i in range(1, 31)]
START = np.array([3.0, 2.0])


@pytest.mark.parametrize(("update", "decay"), [(0, 0.1), (1, 0.181818), (713, 0.987552), (11423, 0.999213)])
def test_threshold_decays_of_paddledetection(update: int, decay: float) -> None:
    assert Ema("threshold").decay(update) == pytest.approx(decay, abs=5e-7)


def test_threshold_reaches_its_limit_near_45000() -> None:
    average = Ema("threshold", 0.9998)
    assert average.decay(44_980) < 0.9998 == average.decay(44_995)


def test_threshold_inflates_what_it_evaluates() -> None:
    assert Ema("threshold").correction(714) == pytest.approx(0.999869, abs=5e-7)
    constant = [np.array([1.0])] * 714
    assert trace(Ema("threshold"), constant, np.array([1.0]))[-1, 0] == pytest.approx(1.00013, abs=5e-6)


def test_exponential_decays_of_yolov5() -> None:
    average = Ema("exponential", 0.9999, 2000)
    assert average.decay(0) == pytest.approx(0.9999 * (1 - math.exp(-1 / 2000)), rel=1e-15)
    assert average.decay(0) == pytest.approx(4.998250e-4, abs=5e-10)  # 0.9999 (1/2000 - 1/8e6 + ...)
    assert average.decay(1999) == pytest.approx(0.9999 * 0.6321205588, rel=1e-9)


def test_threshold_trace_against_a_hand_loop() -> None:
    shadow, expected = np.zeros(2), []
    for step, weight in enumerate(WEIGHTS):
        d = min(0.9, (1 + step) / (10 + step))
        shadow = d * shadow + (1 - d) * weight
        expected.append(shadow / (1 - d ** (step + 1)))
    np.testing.assert_allclose(trace(Ema("threshold", 0.9), WEIGHTS, START), expected, rtol=1e-14)


def test_exponential_and_constant_traces_against_hand_loops() -> None:
    slow, flat = START.copy(), START.copy()
    for n, weight in enumerate(WEIGHTS):
        d = 0.99 * (1 - math.exp(-(n + 1) / 8))
        slow += (1 - d) * (weight - slow)
        flat = flat * 0.75 + weight * 0.25
        np.testing.assert_allclose(trace(Ema("exponential", 0.99, 8), WEIGHTS, START)[n], slow, rtol=1e-12)
        np.testing.assert_allclose(trace(Ema("constant", 0.75), WEIGHTS, START)[n], flat, rtol=1e-12)


def test_a_count_off_by_one_is_seen() -> None:
    right = trace(Ema("exponential", 0.99, 8), WEIGHTS, START)
    shadow, wrong = START.copy(), []
    for n, weight in enumerate(WEIGHTS):
        d = 0.99 * (1 - math.exp(-n / 8))
        shadow = d * shadow + (1 - d) * weight
        wrong.append(shadow)
    assert np.abs(np.array(wrong) - right).max() > 1e-2


def test_config_and_errors() -> None:
    assert ema(EmaConfig(kind="exponential", decay=0.5, tau=3.0)) == Ema("exponential", 0.5, 3.0)
    assert not ema(EmaConfig()).active
    assert [Ema(k).zero_start for k in ("none", "constant", "exponential", "threshold")] == [False, False, False, True]
    assert Ema("none").decay(5) == 0.0
    assert Ema("exponential").correction(0) == 1.0
    with pytest.raises(PortdetError, match="still zero"):
        Ema("threshold").correction(0)
    with pytest.raises(PortdetError, match="unknown EMA"):
        Ema("polyak")
