"""Learning rates against the figures printed in published logs, and against the tables built by a plain loop."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from portdet.config import Config
from portdet.errors import PortdetError
from portdet.train.schedule import Schedule, base_rate, doubts, rate_line, schedule
from tests.patience import GUARD
from tests.train.fakes import rows, settings, train


def of(epochs: int, steps_per_epoch: int = 4, batch: int = 8, **optim: Any) -> Schedule:
    values = {"train": {"epochs": epochs}, "data": {"batch": batch}, "optim": optim}
    return schedule(Config.model_validate(values), steps_per_epoch)


def cosine(**words: Any) -> Schedule:
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
    rates = of(epochs=3, lr0=0.2, schedule="exponential", lr_epochs=[1, 2], lr_gamma=0.5, warmup_epochs=0.5)
    np.testing.assert_array_equal(rates.table(), np.array([0.1, 0.2, 0.2, 0.2] + [0.1] * 4 + [0.05] * 4, np.float32))
    assert [rates.lr_at(s) for s in range(12)] == rates.table().tolist()
    constant = of(epochs=2, lr0=0.2, schedule="constant")
    assert set(constant.table().tolist()) == {float(np.float32(0.2))}


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(PortdetError, match="102400 steps"):
        cosine().lr_at(102400)
    with pytest.raises(PortdetError, match="0 steps"):
        cosine(steps_per_epoch=0)
    with pytest.raises(PortdetError, match="of 4 steps and of 1 epochs"):
        cosine(warmup_epochs=1, warmup_steps=4)
    with pytest.raises(PortdetError, match=r"(?s)warm-up 'ppdt'.*did you mean 'ppdet'"):
        cosine(warmup="ppdt")


# ---------------------------------------------------------------------- PaddleDetection
def voc(**words: Any) -> Schedule:
    """The published transfer to VOC2012: 714 steps of 8 images an epoch, 16 epochs."""
    optim = {"lr0": 0.01, "lr_batch": 192, "schedule": "exponential", "lr_epochs": [12, 14], "warmup": "ppdet"}
    return of(16, 714, **{**optim, "warmup_steps": 714, **words})


# (step, rate as printed) of its log, by PaddleDetection 2.4 on one GPU: every hundredth of the warm-up, and the borders
PRINTED = [
    (0, "0.000000"), (20, "0.000012"), (100, "0.000058"), (200, "0.000117"), (300, "0.000175"), (400, "0.000233"),
    (500, "0.000292"), (600, "0.000350"), (700, "0.000408"), (714, "0.000417"), (11 * 714, "0.000417"),
    (12 * 714, "0.000042"), (14 * 714, "0.000004"),
]  # fmt: skip


def test_rates_printed_by_paddledetection() -> None:
    assert [(step, f"{voc().lr_at(step):.6f}") for step, _ in PRINTED] == PRINTED
    assert f"{voc().lr_at(20):.3g}" == "1.17e-05"
    rates = voc()
    assert rates.lr_at(12 * 714 - 1) > rates.lr_at(12 * 714)
    assert rates.lr_at(14 * 714 - 1) > rates.lr_at(14 * 714) == rates.lr_at(16 * 714 - 1)


def test_the_other_warm_up_prints_other_rates() -> None:
    """One step ahead: 0.0000245 is printed as 0.000025 at step 41 where PaddleDetection has 0.000024."""
    other = voc(warmup="mindspore")
    assert other.lr_at(0) > 0
    assert [f"{rates.lr_at(41):.6f}" for rates in (voc(), other)] == ["0.000024", "0.000025"]


PADDLE = """
import json, sys
from paddle.optimizer.lr import PiecewiseDecay
for base, warm, spe, milestones, steps in json.loads(sys.argv[1]):
    values = [base * (i / warm) for i in range(warm + 1)] if warm else [base]
    bounds = list(range(1, warm + 1)) + [spe * m for m in milestones]
    rates, rule = [], PiecewiseDecay(bounds, values + [base * 0.1 / 10**i for i in range(len(milestones))])
    for _ in range(steps):
        rates.append(rule.get_lr())
        rule.step()
    print(json.dumps(rates))
"""
RUNS = [
    (0.01, 40, 7, [8, 11], 13), (0.005, 4000, 3, [2], 4), (0.004, 0, 5, [1, 3], 4), (0.1, 20, 7, [2, 4], 6),
    (0.1, 21, 7, [3, 4], 6),
]  # fmt: skip


def test_rates_equal_paddles_own_piecewise_decay() -> None:
    """Its table of values and boundaries as PaddleDetection 2.4 fills it. Two milestones lie inside the warm-up, one at
    its end; one warm-up is longer than the training."""
    asked = json.dumps([(base, warm, spe, marks, epochs * spe) for base, warm, spe, marks, epochs in RUNS])
    done = subprocess.run(
        [sys.executable, "-c", PADDLE, asked], capture_output=True, text=True, timeout=GUARD, check=True
    )
    wanted = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    for (base, warm, spe, marks, epochs), rates in zip(RUNS, wanted, strict=True):
        optim: dict[str, Any] = {"schedule": "exponential", "lr_epochs": marks, "warmup": "ppdet"}
        got = of(epochs, spe, lr0=base, warmup_steps=warm, **optim)
        np.testing.assert_array_equal(got.table(), np.array(rates, np.float32))
    assert len({len(rates) for rates in wanted}) > 2


def test_a_milestone_inside_the_warm_up_counts_after_it() -> None:
    rates = of(6, 10, lr0=1.0, schedule="exponential", lr_epochs=[2, 4], warmup_steps=30, warmup="ppdet")
    assert [f"{rates.lr_at(s):.4g}" for s in (0, 15, 29, 30, 39, 40, 59)] == [
        "0", "0.5", "0.9667", "0.1", "0.1", "0.01", "0.01",
    ]  # fmt: skip


def test_a_resumed_run_goes_on_with_the_rates(tmp_path: Path) -> None:
    """Fifteen steps of 0.06 * t / 7, then 0.06, then 0.006 from epoch 2 on; stopped in the warm-up and after it."""
    optim = {"lr0": 0.01, "lr_batch": 4, "schedule": "exponential", "lr_epochs": [2], "warmup": "ppdet"}
    words = {f"optim__{key}": value for key, value in {**optim, "warmup_steps": 7, "warmup_epochs": 0}.items()}
    for stop in (3, 9, 0):
        trainer, _ = train(tmp_path, settings(**words, data__batch=24, train__max_steps=stop))
        if stop != 3:
            trainer.resume()
        trainer.run()
    wanted = [*(0.06 * t / 7 for t in range(7)), *[0.06] * 3, *[0.006] * 5]
    found = [float(row["lr"]) for row in rows(tmp_path / "steps.csv")]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert found[0] == 0


@pytest.mark.parametrize(
    ("lr0", "lr_batch", "batch", "rate"),
    [
        (0.01, 192, 8, "0.000416667"),  # PP-YOLO's, of the log
        (0.005, 96, 8, "0.000416667"),  # PP-YOLOv2's
        (0.01, 192, 192, "0.01"),
        (0.00333, 96, 32, "0.00111"),
        (0.004, 0, 8, "0.004"),
    ],
)
def test_the_rate_is_linear_in_the_global_batch(lr0: float, lr_batch: int, batch: int, rate: str) -> None:
    config = Config.model_validate({"optim": {"lr0": lr0, "lr_batch": lr_batch}, "data": {"batch": batch}})
    assert f"{base_rate(config):.6g}" == rate


def test_the_line_that_tells_the_rate() -> None:
    optim = {"lr0": 0.01, "lr_batch": 192, "schedule": "exponential", "warmup_steps": 714, "warmup": "ppdet"}
    config = Config.model_validate({"optim": optim, "train": {"epochs": 16}})
    assert rate_line(config, schedule(config, 714)) == (
        "learning rate 0.000416667 (0.01 for batches of 192, here 8), exponential after 714 of 11424 steps of warm-up"
    )
    plain = Config.model_validate({"optim": {"lr0": 0.004, "schedule": "constant"}})
    assert rate_line(plain, schedule(plain, 10)) == "learning rate 0.004, constant"


@pytest.mark.parametrize(
    ("kind", "words", "last"),
    [
        # 2 epochs of 8 steps. mindspore: base * (i + 1) / W, ppdet: base * i / W, at i = 15
        ("mindspore", {"warmup_epochs": 4}, 0.1 * 16 / 32),
        ("ppdet", {"warmup_epochs": 4}, 0.1 * 15 / 32),
        ("mindspore", {"warmup_steps": 100}, 0.1 * 16 / 100),
        ("ppdet", {"warmup_steps": 100}, 0.1 * 15 / 100),
        ("mindspore", {"warmup_epochs": 2}, 0.1),
        ("ppdet", {"warmup_steps": 16}, 0.1 * 15 / 16),
        ("mindspore", {"warmup_steps": 15}, None),
        ("ppdet", {"warmup_epochs": 1.9}, None),
        ("ppdet", {}, None),
    ],
)
def test_a_warm_up_that_never_ends_is_told(kind: str, words: dict[str, Any], last: float | None) -> None:
    given = {"lr0": 0.1, "warmup": kind, "warmup_epochs": 0.0} | words
    config = settings(train__epochs=2, **{f"optim__{key}": value for key, value in given.items()})
    planned = schedule(config, 8)
    if last is None:
        assert doubts(planned) == []
        return
    (line,) = doubts(planned)
    assert f"training of 16 steps ends within its warm-up of {planned.warm}: " in line
    assert f"rises to {last:.6g} of 0.1 at most, and 'cosine_annealing' never begins" in line
    assert rate_line(config, planned) == f"learning rate up to {last:.6g} of 0.1"


def test_milestones_that_never_come_are_told() -> None:
    words: dict[str, Any] = {"schedule": "exponential", "lr_epochs": [1, 5, 9, 12], "warmup_epochs": 2}
    assert doubts(of(9, 8, **words)) == [
        "milestones of the learning rate come after the last of 9 epochs and change nothing: optim.lr_epochs 9, 12",
        "milestones of the learning rate lie in the warm-up and change nothing: optim.lr_epochs 1",
    ]
    assert len(doubts(of(9, 8, **words, warmup="ppdet"))) == 1, "there such a milestone counts later"
    assert doubts(of(13, 8, **{**words, "lr_epochs": [5, 9]})) == []
