"""Level `free`: the horizon and its two tests on made-up losses whose truth is known, and on a real small training."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from portdet.align.ladder import free
from portdet.align.ladder.free import CANDIDATE, compared, losses_of, outcomes, reference
from portdet.align.ladder.horizon import AHEAD, RUNS, Envelope, judged
from portdet.align.ladder.outcome import from_plain, to_plain
from portdet.align.ladder.plan import Plan
from portdet.config import load
from portdet.errors import PortdetError
from portdet.session import Batch, StepResult, StepValues
from portdet.train.ema import ema
from portdet.train.loop import Trainer
from portdet.train.schedule import schedule
from tests.train.fakes import NAMES, FakeLoader, FakeSession, batch, settings

STEPS = 30
Array = NDArray[np.float64]


def trainings(count: int, seed: int, fault: Callable[[Array], Array] = lambda base: base) -> list[list[float]]:
    """Losses that fall from 100, and noise that grows tenfold every two steps from 1e-7 up to 5 %, as measured."""
    random = np.random.default_rng(seed)
    steps = np.arange(STEPS)
    base = fault(100 * np.exp(-steps / 20))
    sizes = np.minimum(1e-7 * 10 ** (steps / 2), 0.05)
    return [list(base * (1 + sizes * random.standard_normal(STEPS))) for _ in range(count)]


def envelope(seed: int = 0) -> Envelope:
    return Envelope.of(list(100 * np.exp(-np.arange(STEPS) / 20)), trainings(8, seed))


def test_the_horizon_is_where_the_largest_self_run_passes_one_percent() -> None:
    base = [1.0, 1.0, 1.0, 1.0]
    assert Envelope.of(base, [[1, 1, 1.009, 1.5], [1, 1, 0.98, 1]]).horizon == 2
    assert Envelope.of(base, [[1, 1, 1.009, 1.0099]]).horizon == 4
    assert envelope().horizon in (10, 11)  # 1e-7 * 10 ** 5 = 1 %


def test_tolerances_by_hand() -> None:
    """Largest of the self-runs so far, one step ahead, and at least one ulp of float32, 2 ** -23."""
    found = Envelope.of([2.0, 2.0, 2.0, 2.0], [[2.0, 2.002, 2.0, 2.0], [2.0, 2.0, 2.004, 2.001]])
    assert AHEAD == 1
    assert found.noise == pytest.approx([2**-23, 0.001, 0.002, 0.0005])
    assert found.tolerance == pytest.approx([0.001, 0.002, 0.002, 0.002])


def test_membership_by_hand() -> None:
    """Median of all self-runs 10; deviations 0, +10 %, -20 %: middle -5 %, half-width 15 %; the candidate's +40 %."""
    found = Envelope(np.full(4, 10.0), np.array([[11.0] * 4, [8.0] * 4]))
    assert found.horizon == 0
    runs = np.array([[13.0, 15, 13, 15], [10, 10, 10, 10], [20, 20, 20, 20]])
    assert found.places(runs, (0, 4)) == pytest.approx((0.4, -0.05, 0.15))
    assert found.outside(runs, (0, 4)) == pytest.approx(3.0)


def test_a_ratio_by_hand() -> None:
    base = np.ones(3)
    found = Envelope(base, np.array([[1, 1.001, 1.002]]))
    runs = np.array([[1.0, 1.012, 1], [1.0, 1.008, 1], [1, 1.5, 1]])  # the median is 0.012
    assert found.ratios(runs) == pytest.approx([0, 6, 0])
    rows = judged(found, runs.tolist())
    assert [row.status for row in rows] == ["same", "doubtful", "same"]
    rows = judged(found, [[1, 1.05, 1]] * 3)
    assert [(row.status, row.step, round(row.ratio)) for row in rows if row.guilty] == [("different", 1, 25)]


def test_healthy_trainings_raise_no_alarm() -> None:
    alarms = sum(compared(envelope(n), "paddle", trainings(3, 1000 + n)).passed is not True for n in range(40))
    assert alarms == 0


@pytest.mark.parametrize(
    ("fault", "step"),
    [
        (lambda base: base * 1.001, 0),  # another normaliser
        (lambda base: base * (1 + 1e-4 * np.arange(STEPS)), 1),  # another learning rate
        (lambda base: np.where(np.arange(STEPS) >= 5, base * 1.05, base), 5),  # a wrong batch
        (lambda base: np.where(np.arange(STEPS) >= 22, base * 3, base), 17),  # late: a milestone that was skipped
        (lambda base: base[np.maximum(np.arange(STEPS) - 1, 0)], 1),  # one step behind
    ],
)
def test_planted_faults_are_found_where_they_begin(fault: Callable[[Array], Array], step: int) -> None:
    found = compared(envelope(), "paddle", trainings(3, 77, fault))
    guilty = [row.step for row in found.rows if row.guilty]
    assert found.passed is False
    assert step <= guilty[0] <= step + 1
    assert f"At step {guilty[0]}" in found.words


def test_one_run_that_an_activation_throws_off_is_no_alarm() -> None:
    runs = trainings(3, 5)
    runs[1] = [loss * (1.002 if step > 2 else 1) for step, loss in enumerate(runs[1])]
    assert compared(envelope(), "paddle", runs).passed
    runs[2] = runs[1]
    assert compared(envelope(), "paddle", runs).passed is False


def test_losses_that_are_not_finite() -> None:
    runs = trainings(3, 5)
    runs[0][7] = float("nan")
    found = compared(envelope(), "paddle", runs)
    assert [(row.status, row.step) for row in found.rows] == [("broken", 7)]
    assert from_plain(json.loads(json.dumps(to_plain(found)))).passed is False
    with pytest.raises(PortdetError, match="no self-runs with finite losses"):
        Envelope.of([1.0, float("inf")], [[1.0, 1.0]])


def test_what_is_told_and_drawn() -> None:
    found = compared(envelope(), "paddle", trainings(3, 5))
    (line,) = found.series
    assert (line.kind, line.name, len(line.xs), len(line.low)) == ("loss of each step", "paddle", STEPS, STEPS)
    assert all(low <= high for low, high in zip(line.low, line.high, strict=True))
    assert line.marks == {"horizon": float(envelope().horizon)}
    assert found.facts["horizon"] == f"step {envelope().horizon}"
    assert "56 sets of 3" in found.facts["healthy runs"]
    assert len([row for row in found.rows if row.name == "loss"]) == envelope().horizon
    assert len(found.rows) == envelope().horizon + 3
    short = Envelope(envelope().base[:5], envelope().runs[:, :5])
    ended = compared(short, "paddle", [run[:5] for run in trainings(3, 5)])
    assert ended.facts["horizon"] == "not within 5 steps"
    assert ended.series[0].marks == {}
    assert "noise never exceeds 1%" in ended.words


# momentum SGD in float32 by hand: two weights, see tests/train/fakes.py


class Case:
    """What `losses_of` asks of a case; an epoch has 5 steps."""

    def __init__(self, **words: Any) -> None:
        self.config = settings(**words)
        self.schedule, self.average = schedule(self.config, 5), ema(self.config.ema)
        self.initial = {name: np.array([value], np.float32) for name, value in zip(NAMES, (1.3, 2.7), strict=True)}


class OtherRounding(FakeSession):
    """The same step in float64, rounded once at its end: a framework of its own."""

    def train_step(self, batch: Batch, values: StepValues) -> StepResult:
        target = float(batch.images.mean(dtype=np.float64))
        loss = sum(0.5 * (float(self.w[name][0]) - target) ** 2 for name in NAMES)
        for name in NAMES:
            momentum = 0.9 * self.m[name].astype(np.float64) + self.w[name] - target
            self.w[name] = (self.w[name] - values.lr * momentum).astype(np.float32)
            self.m[name] = momentum.astype(np.float32)
        return StepResult({"loss": float(np.float32(loss))})


def trained(session: FakeSession, seeds: Sequence[int], **words: Any) -> list[list[float]]:
    batches = [batch(epoch, step) for epoch in range(3) for step in range(5)]
    return [losses_of(session, cast(Any, Case(**words)), batches, seed) for seed in seeds]


def test_another_rounding_stays_and_a_learning_rate_of_a_thousandth_more_leaves() -> None:
    base, *runs = trained(FakeSession(), range(-1, 8))
    found = Envelope.of(base, runs)
    assert found.horizon == 15, "nothing is chaotic in it"
    assert compared(found, "other", trained(OtherRounding(), (1000, 1001, 1002))).passed
    wrong = compared(found, "other", trained(OtherRounding(), (1000, 1001, 1002), optim__lr0=0.05005))
    assert [row.step for row in wrong.rows if row.guilty] == list(range(1, 15)), "the first update is that of step 0"


def test_a_run_takes_the_loops_decisions() -> None:
    """Rates, loss scale and the average's decay of each step, skipped ones counted, are those of the training loop."""
    session = FakeSession(overflow_at=(3,))
    words = {"optim__loss_scale": "dynamic", "train__max_steps": 15}
    trained(session, (-1,), **words)
    loop = FakeSession(overflow_at=(3,))
    with tempfile.TemporaryDirectory() as folder:
        Trainer(settings(**words), loop, FakeLoader(), Path(folder)).run()
    assert session.values_seen == loop.values_seen


# a real training of 0.01 M parameters


def plan(folder: Path, *words: str, backends: tuple[str, ...] = ("torch",)) -> Plan:
    tiny = ("imgsz=64", "data.scene_size=64", "data.train_count=16", "data.val_count=4", "data.batch=2", "epochs=4")
    config = load("yolov3_scenes", (*tiny, "model.width=0.03125", "workers=0", "threads=1", *words))
    return Plan(config.model_dump(mode="json"), str(folder), backends, ("free",), free_steps=12)


@pytest.mark.slow
def test_another_thread_count_stays_and_another_learning_rate_leaves(tmp_path: Path) -> None:
    said: list[str] = []
    own = plan(tmp_path)
    found = reference(own, said.append)
    assert found.runs.shape == (8, 12)
    assert found.horizon > 0
    assert "torch runs free: 9 of 9" in said
    kept = reference(own, said.append)
    assert np.array_equal(kept.runs, found.runs)
    assert said.count("torch runs free: 9 of 9") == 1, "the reference ran again"
    seeds = range(CANDIDATE, CANDIDATE + RUNS)
    threads = free._run(plan(tmp_path, "threads=2"), "torch", seeds, said.append)
    assert compared(found, "torch", threads).passed
    faster = free._run(plan(tmp_path, "lr0=0.008"), "torch", seeds, said.append)
    wrong = compared(found, "torch", faster)
    assert wrong.passed is False
    assert next(row.step for row in wrong.rows if row.guilty) == 1, "the first update is that of step 0"


@pytest.mark.slow
def test_all_backends_run_free_with_their_own_rounding(tmp_path: Path) -> None:
    every = outcomes(plan(tmp_path, backends=("torch", "mindspore", "paddle")), print)
    assert [(o.backend, o.passed, o.crashed) for o in every] == [("mindspore", True, ""), ("paddle", True, "")]


def test_a_backend_that_crashes_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(plan: Plan, backend: str, seeds: range, say: object) -> list[list[float]]:
        if backend == "mindspore":
            raise PortdetError("was killed by SIGKILL")
        runs = trainings(8, 0) if backend == "torch" else trainings(3, 9)
        return [list(envelope().base), *runs] if backend == "torch" else runs

    monkeypatch.setattr(free, "_run", run)
    found = outcomes(replace(plan(tmp_path), backends=("torch", "mindspore", "paddle")), print)
    assert [(o.backend, o.passed) for o in found] == [("mindspore", None), ("paddle", True)]
    assert "SIGKILL" in found[0].crashed
    assert found[1].seconds > 0
