"""Level `train`: made-up trainings whose truth is known, planted differences, and what is kept on a second try."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from portdet.align.ladder.outcome import from_plain, to_plain
from portdet.align.ladder.plan import Plan
from portdet.align.ladder.training import Arm, Run, compared, outcome
from portdet.align.rule import Trace
from portdet.align.runs import Runs
from portdet.config import Config, load
from portdet.errors import PortdetError
from portdet.report.align_run import BackendRun
from portdet.report.results import ResultsLog
from portdet.train import checkpoint
from portdet.train.fingerprint import weights_hash
from portdet.train.folder import describe

TRACE = Trace(["0.1", "0.05"], ["aa", "bb"], "cafe", {"loss": 100.0, "xy": 3.0}, ["0.5", "0.6"])
SEEDS = range(5)


def run(final: float, trace: Trace = TRACE) -> Run:
    epochs = [{"epoch": e, "AP50": share * final, "AP": share * final / 2} for e, share in enumerate((0.5, 1, 1, 1), 1)]
    return Run(BackendRun("any", "1", "cpu", 1.0, epochs, [9.0, 5.0, 4.0, 3.0]), trace)


def arm(name: str, finals: list[float]) -> Arm:
    return Arm(name, {seed: run(final) for seed, final in enumerate(finals)})


def test_equal_trainings_that_scatter_are_equivalent() -> None:
    reference, other = [0.60, 0.63, 0.58, 0.61, 0.59], [0.61, 0.62, 0.59, 0.60, 0.60]
    found = compared(arm("torch", reference), arm("paddle", other), 0.1)
    assert found.passed
    assert "AP50 +0.002, 90 % interval -0.008 to +0.012, margin 0.1, 5 seeds" in found.words
    assert found.checked == 5 * 5 + 3  # weights, learning rates, EMA, batches, first losses of each; three scores
    assert [(i.name, i.runs, i.verdict) for i in found.intervals] == [
        (name, 5, "equivalent") for name in ("AP50 final", "AP final", "curve area")
    ]
    assert found.facts["epochs that differ"].startswith("none of 4")
    assert "SD 0.0110" in found.facts["AP50 final"]  # of +1 -1 +1 -1 +1 hundredths
    assert from_plain(json.loads(json.dumps(to_plain(found)))) == found


def test_a_shift_beyond_the_margin_is_different_and_one_near_it_is_open() -> None:
    reference = [0.60, 0.63, 0.58, 0.61, 0.59]
    worse = [final - 0.2 + scatter for final, scatter in zip(reference, (0.01, -0.01, 0, 0.02, -0.02), strict=True)]
    found = compared(arm("torch", reference), arm("paddle", worse), 0.1)
    assert found.passed is False
    assert found.first == "AP50 final"
    assert "AP50 final: different: -0.200" in found.words
    assert found.facts["epochs that differ"].startswith("1, 2, 3, 4 of 4")
    near = compared(arm("torch", reference), arm("paddle", [final - 0.1 for final in reference[::-1]]), 0.1)
    assert near.passed is None
    assert near.words.startswith("AP50 final: -0.100")


def test_few_scattered_pairs_are_open_and_the_seeds_that_would_do_are_named() -> None:
    found = compared(arm("torch", [0.5, 0.6, 0.7]), arm("paddle", [0.6, 0.5, 0.7]), 0.1)
    assert found.passed is None
    assert "about 11 seeds would show equivalence" in found.words
    assert found.intervals[0].needed == 11  # SD 0.1, which is the margin: (1.645 + 1.282)^2 = 8.6 if it were known


def test_trainings_that_learned_nothing_are_not_called_equivalent() -> None:
    found = compared(arm("torch", [0.01, 0.02, 0.0]), arm("paddle", [0.02, 0.01, 0.01]), 0.1)
    assert found.passed is None
    assert "a model that learns nothing would pass" in found.words
    assert [i.verdict for i in found.intervals] == ["inconclusive"] * 3


def test_one_pair_passes_by_todays_rule_and_claims_no_equivalence() -> None:
    found = compared(arm("torch", [0.6]), arm("paddle", [0.55]), 0.1)
    assert found.passed
    assert "bounds no small difference" in found.words
    assert [i.verdict for i in found.intervals] == ["inconclusive"] * 3
    assert found.intervals[0].power is None
    assert compared(arm("torch", [0.6]), arm("paddle", [0.45]), 0.1).first == "AP50 final"
    assert compared(arm("torch", [0.6]), arm("paddle", [-1.0]), 0.1).first == "AP50 final"
    assert from_plain(json.loads(json.dumps(to_plain(found)))) == found


@pytest.mark.parametrize(
    ("fault", "first", "status"),
    [
        ({"weights": "beef"}, "rule/initial weights, seed 3", "broken"),
        ({"learning_rates": ["0.1", "0.049"]}, "rule/learning rates, seed 3", "broken"),
        ({"decays": ["0.5", "0.5"]}, "rule/EMA decays, seed 3", "broken"),
        ({"batches": ["aa", "cc"]}, "rule/batches, seed 3", "broken"),
        ({"first_losses": {"loss": 100.02, "xy": 3.0}}, "rule/losses of the first step, seed 3", "different"),
    ],
)
def test_a_planted_difference_in_one_seed_is_named(fault: dict[str, Any], first: str, status: str) -> None:
    reference, other = arm("torch", [0.6] * 5), arm("paddle", [0.6] * 5)
    assert compared(reference, other, 0.1).passed
    other.runs[3] = run(0.6, replace(TRACE, **fault))
    found = compared(reference, other, 0.1)
    assert (found.passed, found.first, found.guilty) == (False, first, 1)
    assert next(row for row in found.rows if row.guilty).status == status


def test_a_backend_without_a_score_in_one_seed_is_guilty() -> None:
    other = arm("paddle", [0.6] * 5)
    other.runs[2] = run(-1.0)
    found = compared(arm("torch", [0.6] * 5), other, 0.1)
    assert (found.passed, found.first) == (False, "AP50 final")


def test_a_crashed_seed_leaves_the_other_pairs() -> None:
    other = arm("paddle", [0.6] * 5)
    del other.runs[0]
    other.failed.append("paddle: killed")
    found = compared(arm("torch", [0.6] * 5), other, 0.1)
    assert found.passed is None
    assert found.crashed == "paddle: killed"
    assert found.intervals[0].runs == 4
    nothing = compared(arm("torch", [0.6]), Arm("paddle", {}, ["paddle: killed"]), 0.1)
    assert (nothing.passed, nothing.crashed) == (None, "paddle: killed")


def test_lines_to_draw_span_the_seeds_and_stay_short() -> None:
    both = arm("torch", [0.4, 0.6])
    both.runs[0].backend.step_losses, both.runs[1].backend.step_losses = list(range(1000)), list(range(2, 1002))
    curve, losses = both.series()
    assert (curve.kind, curve.name, curve.xs) == ("AP50 by epoch", "torch", [1, 2, 3, 4])
    assert curve.ys == pytest.approx([0.25, 0.5, 0.5, 0.5])
    assert (curve.low[0], curve.high[0]) == pytest.approx((0.2, 0.3))
    assert losses.xs[:2] == [0, 3]
    assert (losses.low[1], losses.ys[1], losses.high[1]) == (4, 5, 6)  # means of steps 3 to 5
    assert len(losses.xs) == 334
    assert arm("torch", [0.4]).series()[0].low == []


# trainings that leave the files of one, without training


def tiny(**more: Any) -> Config:
    words = ("imgsz=64", "data.scene_size=64", "data.train_count=8", "data.val_count=4", "data.batch=4", "epochs=2")
    config = load("yolov3_scenes", (*words, "model.width=0.03125", "workers=0"))
    for key, value in more.items():
        setattr(config.train, key, value)
    return config


class FakeRuns:
    """Stands in for the child process: writes what `portdet train` writes. calls: (folder's name, resumed or not)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bool]] = []
        self.broken: set[str] = set()
        self.epochs = 2

    def __call__(self, runs: Runs, name: str, backend: str, seed: int, initial: Path, *, resume: bool) -> str:
        self.calls.append((name, resume))
        if name in self.broken:
            return "out of memory"
        config = runs._resolved(seed)
        config.train.backend = backend
        target = runs.folder / name
        describe(target, config)
        weights = load_file(initial)
        session = {"initial_weights": weights_hash(weights)}
        (target / "session.json").write_text(json.dumps(session))
        log = ResultsLog(target / "results.csv", ["loss"])
        for epoch in range(1, self.epochs + 1):
            log.append({"epoch": epoch, "AP": 0.3, "AP50": 0.6 + 0.01 * seed + 0.001 * (backend == "paddle") * seed})
        with (target / "steps.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["epoch", "step", "lr", "loss", "loss_scale", "ema_decay", "skipped", "batch"])
            rows.writerows([[1, step, 0.1, 5.0 + seed, 1.0, 0.5, 0, f"{seed}{step}"] for step in range(4)])
        progress = checkpoint.Progress(epoch=self.epochs, config=checkpoint.config_values(config))
        (target / "weights").mkdir(exist_ok=True)
        checkpoint.save_state(target / "weights" / "last.safetensors", {"weights/x": np.zeros(1, np.float32)}, progress)
        return ""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeRuns:
    trainer = FakeRuns()
    monkeypatch.setattr(Runs, "_train", lambda runs, *words, **named: trainer(runs, *words, **named))
    return trainer


def plan(folder: Path, config: Config | None = None, **more: Any) -> Plan:
    values = (config or tiny()).model_dump(mode="json")
    return Plan(values, str(folder), ("torch", "paddle"), ("train",), **{"seeds": 3, **more})


def test_each_seed_has_its_own_weights_shared_by_the_backends(tmp_path: Path, fake: FakeRuns) -> None:
    found, side_by_side = outcome(plan(tmp_path, tiny(seed=7)), print)
    assert [name for name, _ in fake.calls] == [
        "torch", "paddle", "torch_seed8", "paddle_seed8", "torch_seed9", "paddle_seed9"
    ]  # fmt: skip
    started = {path.name: weights_hash(load_file(path)) for path in tmp_path.glob("initial*")}
    assert sorted(started) == ["initial.safetensors", "initial_seed8.safetensors", "initial_seed9.safetensors"]
    assert len(set(started.values())) == 3
    assert [(o.backend, o.passed) for o in found] == [("torch", True), ("paddle", True)]
    assert "SD 0.010 over 3 seeds" in found[0].words
    assert side_by_side.passed
    assert [run.name for run in side_by_side.backends] == ["torch", "paddle"]
    assert side_by_side.verdict.startswith("paddle: equivalent: AP50")


def test_finished_trainings_are_kept_and_say_the_same(tmp_path: Path, fake: FakeRuns) -> None:
    first, _ = outcome(plan(tmp_path), print)
    fake.calls.clear()
    said: list[str] = []
    again, _ = outcome(plan(tmp_path), said.append)
    assert fake.calls == []
    assert "torch_seed1 is finished and kept" in said
    for before, after in zip(first, again, strict=True):
        assert replace(before, seconds=0.0) == replace(after, seconds=0.0)


def test_more_seeds_train_only_what_is_missing(tmp_path: Path, fake: FakeRuns) -> None:
    outcome(plan(tmp_path, seeds=1), print)
    fake.calls.clear()
    outcome(plan(tmp_path, seeds=2), print)
    assert fake.calls == [("torch_seed1", False), ("paddle_seed1", False)]


def test_a_stopped_training_goes_on_and_another_ones_starts_anew(tmp_path: Path, fake: FakeRuns) -> None:
    fake.epochs = 1
    outcome(plan(tmp_path, seeds=1), print)
    fake.calls.clear()
    fake.epochs, said = 2, list[str]()
    outcome(plan(tmp_path, seeds=1), said.append)
    assert fake.calls == [("torch", True), ("paddle", True)]
    assert "torch goes on where it was stopped" in said
    fake.calls.clear()
    config = tiny()
    config.optim.lr0 = 0.002
    outcome(plan(tmp_path, config, seeds=1), said.append)
    assert fake.calls == [("torch", False), ("paddle", False)]
    assert "torch is of another training, or cannot be resumed: it starts anew" in said


def test_a_crashed_backend_leaves_the_others_and_is_tried_again(tmp_path: Path, fake: FakeRuns) -> None:
    fake.broken = {"paddle", "paddle_seed1", "paddle_seed2"}
    found, run = outcome(plan(tmp_path), print)
    assert [(o.backend, o.passed) for o in found] == [("torch", True), ("paddle", None)]
    assert "out of memory" in found[1].crashed
    assert run.passed is None
    assert "paddle did not finish" in run.verdict
    fake.broken, fake.calls = set(), []
    found, _ = outcome(plan(tmp_path), print)
    assert [name for name, _ in fake.calls] == ["paddle", "paddle_seed1", "paddle_seed2"]
    assert found[1].passed


def test_without_the_reference_there_is_nothing_to_compare_with(tmp_path: Path, fake: FakeRuns) -> None:
    fake.broken = {"torch"}
    with pytest.raises(PortdetError, match="the reference, torch, did not finish"):
        outcome(plan(tmp_path, seeds=1), print)


def test_pretrained_weights_have_to_be_in_the_plan(tmp_path: Path) -> None:
    with pytest.raises(PortdetError, match="the plan has no initial weights"):
        outcome(plan(tmp_path, tiny(pretrained="x.pt")), print)
