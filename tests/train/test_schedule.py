"""Learning rates against the figures printed in published logs, and against the tables built by a plain loop."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from portdet.config import OptimConfig
from portdet.errors import PortdetError
from portdet.train.schedule import Schedule, schedule


def cosine(**words: float) -> Schedule:
    values = {"base": 0.1, "kind": "cosine_annealing", "epochs": 320, "steps_per_epoch": 320, "warmup_epochs": 4}
    return Schedule(**(values | words))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 7.8125e-05),
        (100, 0.007890625),
        (200, 0.015703125),
        (300, 0.023515625),
        (318 * 320, 9.63797629e-06),
        (319 * 320, 2.40955205e-06),
        (320 * 320 - 1, 2.40955205e-06),
    ],
)
def test_rates_printed_by_mindspore_models(step: int, rate: float) -> None:
    assert np.float32(cosine().lr_at(step)) == np.float32(rate)


def test_a_rate_printed_with_seven_digits() -> None:
    assert f"{cosine().lr_at(400):.7g}" == "0.03132813"


def test_first_rates_of_the_other_published_logs() -> None:
    assert np.float32(cosine(base=0.001).lr_at(0)) == np.float32(7.8125e-07)
    luojianet = Schedule(0.0012, "exponential", 320, 189, warmup_epochs=4, milestones=(220, 250))
    assert f"{luojianet.lr_at(0):.7e}" == "1.5873015e-06"


def test_the_rate_logged_is_of_the_global_step_not_of_the_step_within_the_epoch() -> None:
    rates = cosine()
    assert rates.lr_at(10 * 320) != rates.lr_at(0)


def loop_table(
    base: float, spe: int, warmup: float, epochs: int, milestones: list[int], gamma: float
) -> NDArray[np.float32]:
    """Multi-step decay as a running product, the way the originals build it."""
    warm, hits, rates, rate = int(warmup * spe), Counter(m * spe for m in milestones), [], base
    for i in range(epochs * spe):
        rate = base / warm * (i + 1) if i < warm else rate * gamma ** hits[i]
        rates.append(rate)
    return np.array(rates).astype(np.float32)


@pytest.mark.parametrize(
    ("warmup", "milestones"),
    [(0, [3, 5]), (2, [1, 4]), (2, [2, 4]), (1.5, [2, 4]), (3.9, [3, 4, 6]), (0, []), (1, [4, 4]), (0, [0, 7])],
)
@pytest.mark.parametrize("base", [0.001, 0.0012, 0.1])
@pytest.mark.parametrize("spe", [1, 7, 100])
def test_exponential_equals_a_running_product(base: float, spe: int, warmup: float, milestones: list[int]) -> None:
    rates = Schedule(base, "exponential", 8, spe, warmup, tuple(milestones), 0.1)
    np.testing.assert_array_equal(rates.table(), loop_table(base, spe, warmup, 8, milestones, 0.1))


def test_a_milestone_inside_the_warm_up_is_skipped() -> None:
    rates = Schedule(1.0, "exponential", 6, 10, 3, (2, 4))
    assert [rates.lr_at(s) for s in (30, 39, 40, 59)] == [1.0, 1.0, *[float(np.float32(0.1))] * 2]


def test_cosine_is_a_staircase_that_counts_warm_up_epochs() -> None:
    rates = cosine(epochs=8, t_max=8, steps_per_epoch=5, warmup_epochs=2, eta_min=0.01)
    assert rates.lr_at(20) == rates.lr_at(24) != rates.lr_at(25)
    assert rates.lr_at(20) == pytest.approx(0.01 + 0.09 * (1 + math.cos(math.pi / 2)) / 2, rel=1e-7)


@pytest.mark.parametrize(("t_max", "used"), [(0, 10), (3, 10), (10, 10), (20, 20)])
def test_half_period_is_never_shorter_than_the_training(t_max: int, used: int) -> None:
    last = cosine(epochs=10, steps_per_epoch=1, warmup_epochs=0, t_max=t_max).lr_at(9)
    assert last == pytest.approx(0.05 * (1 + math.cos(math.pi * 9 / used)), rel=1e-6)


def test_table_is_lr_at_and_the_config_reaches_every_field() -> None:
    config = OptimConfig(lr0=0.2, schedule="exponential", lr_epochs=[1, 2], lr_gamma=0.5, warmup_epochs=0.5)
    rates = schedule(config, epochs=3, steps_per_epoch=4)
    np.testing.assert_array_equal(rates.table(), np.array([0.1, 0.2, 0.2, 0.2] + [0.1] * 4 + [0.05] * 4, np.float32))
    assert [rates.lr_at(s) for s in range(12)] == rates.table().tolist()
    constant = schedule(OptimConfig(lr0=0.2, schedule="constant"), epochs=2, steps_per_epoch=2)
    assert set(constant.table().tolist()) == {float(np.float32(0.2))}


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(PortdetError, match="102400 steps"):
        cosine().lr_at(102400)
    with pytest.raises(PortdetError, match="0 steps"):
        cosine(steps_per_epoch=0)
