"""EMA decays against published values, and evaluated averages against loops written out by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from portdet.config import EmaConfig, EmaKind
from portdet.errors import PortdetError
from portdet.train.ema import Ema, ema, trace
from tests import bundles

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


@pytest.mark.parametrize("decay", [0.9998, 0.9, 0.05])
def test_the_exact_correction_is_the_weight_that_the_shadow_holds(decay: float) -> None:
    """The ramp reaches 0.9 after 80 updates; 0.05 lies below its first decay, 0.1."""
    exact, left = Ema("threshold_exact", decay), 1.0
    for update in range(120):
        assert exact.decay(update) == Ema("threshold", decay).decay(update)
        left *= exact.decay(update)
        assert exact.correction(update + 1) == pytest.approx(1 - left, rel=1e-12)
    constant = [np.array([2.5])] * 50
    np.testing.assert_allclose(trace(exact, constant, np.array([2.5])), 2.5, rtol=1e-14)
    assert exact.correction(60_000) == 1.0


def test_oracle_of_ppdet_inflates_after_three_updates(oracles: Path) -> None:
    """PaddleDetection's own ModelEMA after three steps, of a norm's weights that move by less than 1e-5: 1.0112554."""
    folder, name = oracles / "ppdet_ppyolo_r50vd_dcn", "neck.yolo_block.1.conv_module.conv1.batch_norm.weight"
    weight = bundles.weights(folder, name)[name]
    with np.load(folder / "train.npz") as found:
        ratio = float(np.median(found[f"ema3.{name}"] / weight))
    one = [np.array([1.0])] * 3
    assert trace(Ema("threshold"), one, one[0])[-1, 0] == pytest.approx(ratio, abs=1e-6)
    assert abs(trace(Ema("threshold_exact"), one, one[0])[-1, 0] - ratio) > 0.01


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
    assert [k for k in get_args(EmaKind) if Ema(k).zero_start] == ["threshold", "threshold_exact"]
    assert Ema("none").decay(5) == 0.0
    assert Ema("exponential").correction(0) == 1.0
    with pytest.raises(PortdetError, match="still zero"):
        Ema("threshold").correction(0)
    with pytest.raises(PortdetError, match=r"(?s)unknown EMA 'treshold'.*did you mean 'threshold'"):
        Ema("treshold")  # type: ignore[arg-type]
