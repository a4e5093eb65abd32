"""The loop: numbers worked out by hand, interruptions that leave no trace in the result, errors that lose nothing."""

from __future__ import annotations

import hashlib
import io
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from portdet.errors import PortdetError
from portdet.report.progress import Progress
from portdet.train import checkpoint, fingerprint
from portdet.train.fingerprint import batch_hash
from portdet.train.loop import Trainer
from tests.counts import Calls
from tests.train.fakes import FakeLoader, FakeSession, batch, resumed, rows, score, settings, train


def test_steps_follow_the_closed_forms(tmp_path: Path) -> None:
    trainer, session = train(tmp_path)
    outcome = trainer.run()
    assert (outcome.reason, outcome.epochs, outcome.steps) == ("finished", 3, 15)
    cosine = [0.025 * (1 + math.cos(math.pi * e / 3)) for e in (1, 2)]
    assert [v.lr for v in session.values_seen] == pytest.approx(
        [0.01, 0.02, 0.03, 0.04, 0.05] + [cosine[0]] * 5 + [cosine[1]] * 5, rel=1e-6
    )
    decays = [0.99 * (1 - math.exp(-t / 5)) for t in range(1, 16)]
    assert [v.ema_decay for v in session.values_seen] == pytest.approx(decays, rel=1e-12)
    log = rows(tmp_path / "steps.csv")
    assert [float(row["lr"]) for row in log] == [v.lr for v in session.values_seen]
    assert list(log[0]) == ["epoch", "step", "lr", "loss", "xy", "loss_scale", "ema_decay", "skipped", "batch"]
    assert [float(row["ema_decay"]) for row in log] == [v.ema_decay for v in session.values_seen]
    assert len({row["batch"] for row in log}) == 15


def test_weights_after_two_steps_by_hand(tmp_path: Path) -> None:
    trainer, session = train(tmp_path, settings(train__max_steps=2, ema__kind="constant", ema__decay=0.5))
    assert trainer.run().reason == "max_steps"
    weight, velocity, average = 1.0, 0.0, 1.0
    for step, lr in enumerate((0.01, 0.02)):
        velocity = 0.9 * velocity + (weight - float(batch(0, step).images.mean()))
        weight -= lr * velocity
        average = (average + weight) / 2
    assert session.w["head.weight"][0] == pytest.approx(weight, rel=1e-6)
    assert session.e["head.weight"][0] == pytest.approx(average, rel=1e-6)


def test_results_are_means_of_the_epoch_and_metrics_of_the_average(tmp_path: Path) -> None:
    trainer, session = train(tmp_path)
    trainer.run()
    log, results = rows(tmp_path / "steps.csv"), rows(tmp_path / "results.csv")
    for epoch in (1, 2, 3):
        losses = [float(row["loss"]) for row in log if row["epoch"] == str(epoch)]
        assert float(results[epoch - 1]["loss"]) == pytest.approx(sum(losses) / 5, rel=1e-12)
    with session.ema_weights():
        assert float(results[-1]["AP"]) == score(session, 2)["AP"]
    assert float(results[-1]["AP"]) != score(session, 2)["AP"]


def test_best_holds_the_average_and_says_so(tmp_path: Path) -> None:
    trainer, session = train(tmp_path, settings(ema__kind="threshold", ema__decay=0.9998))
    outcome = trainer.run()
    arrays, about = checkpoint.load_weights(tmp_path / "weights" / "best.safetensors")
    best = max(rows(tmp_path / "results.csv"), key=lambda row: float(row["AP"]))
    assert (about["weights"], about["epoch"]) == ("threshold", outcome.best_epoch + 1)
    assert (best["epoch"], float(best["AP"])) == (str(about["epoch"]), about["metrics"]["AP"])
    trainer, session = train(
        tmp_path / "again", settings(ema__kind="threshold", ema__decay=0.9998, train__max_steps=10)
    )
    trainer.run()
    assert outcome.best_epoch == 1
    correction = 1 - (10 / 19) ** 10  # after 10 updates; d of the last, number 9, is 10/19
    assert arrays["head.weight"][0] == pytest.approx(session.e["head.weight"][0] / correction, rel=1e-6)


# ---- faults


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    loader = FakeLoader()
    trainer, _ = train(tmp_path, loader=loader, nan_at=7)
    with pytest.raises(PortdetError, match=r"step 7 \(epoch 2\) is not finite: loss nan, xy .*images 2, 102") as error:
        trainer.run()
    assert "last.safetensors holds the last good state" in str(error.value)
    assert loader.open == 0
    assert checkpoint.load_state(trainer.last)[1].step == 5
    assert len(rows(tmp_path / "steps.csv")) == 7


def test_the_checkpoint_of_an_earlier_run_is_not_called_this_ones(tmp_path: Path) -> None:
    train(tmp_path)[0].run()
    with pytest.raises(PortdetError, match="no checkpoint was written yet"):
        train(tmp_path, nan_at=2)[0].run()


def test_overflow_halves_skips_and_is_counted(tmp_path: Path) -> None:
    trainer, session = train(tmp_path, settings(optim__loss_scale="dynamic"), overflow_at=(1, 2, 6))
    trainer.run()
    scales = [v.loss_scale for v in session.values_seen]
    assert scales == [65536.0] * 2 + [32768.0] + [16384.0] * 4 + [8192.0] * 8
    assert trainer.progress.ema_updates == 12
    assert [row["step"] for row in rows(tmp_path / "steps.csv") if row["skipped"] == "1"] == ["1", "2", "6"]
    assert trainer.scale.skipped_steps == 3
    assert float(rows(tmp_path / "results.csv")[0]["loss"]) < math.inf
    decays = [v.ema_decay for v in session.values_seen]
    assert decays[1] == decays[2] == decays[3] < decays[4]


def test_a_loader_that_gives_too_few(tmp_path: Path) -> None:
    loader = FakeLoader()
    trainer, _ = train(tmp_path, loader=loader)
    loader.steps_per_epoch = 4
    with pytest.raises(PortdetError, match="gave 4 of the 5 batches of epoch 1"):
        trainer.run()


def test_another_configuration_or_model_does_not_resume(tmp_path: Path) -> None:
    train(tmp_path, settings(train__max_steps=3))[0].run()
    with pytest.raises(PortdetError, match=r"optim\.momentum was 0\.9 and is 0\.5"):
        resumed(tmp_path, settings(optim__momentum=0.5, optim__lr0=0.05, optim__warmup_epochs=1.0))
    trainer, session = train(tmp_path)
    session.e = {}
    with pytest.raises(PortdetError, match="unexpected"):
        trainer.resume()


# ---- when to validate and stop


def validated(folder: Path, **words: Any) -> list[int]:
    trainer, _ = train(folder, settings(**words))
    seen: list[int] = []

    def note(session: Any, epoch: int) -> dict[str, float]:
        seen.append(epoch + 1)
        return {"AP": 0.5}

    trainer.validate = note
    trainer.run()
    return seen


def test_which_epochs_are_validated(tmp_path: Path) -> None:
    assert validated(tmp_path / "a", train__epochs=7, eval__every=3) == [1, 4, 7]
    assert validated(tmp_path / "b", train__epochs=8, eval__every=3, eval__start=3) == [3, 6, 8]
    results = rows(tmp_path / "b" / "results.csv")
    assert [row["AP"] for row in results] == ["", "", "0.5", "", "", "0.5", "", "0.5"]


def test_patience_counts_validations_without_a_better_one(tmp_path: Path) -> None:
    assert validated(tmp_path, train__epochs=9, train__patience=3) == [1, 2, 3, 4]


def test_patience_starts_again_at_a_better_one(tmp_path: Path) -> None:
    trainer, _ = train(tmp_path, settings(train__epochs=9, train__patience=2))
    curve = [0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.3, 0.4, 0.5]
    trainer.validate = lambda session, epoch: {"AP": curve[epoch]}
    outcome = trainer.run()
    assert (outcome.reason, outcome.epochs, outcome.best, outcome.best_epoch) == ("patience", 7, 0.3, 4)


def test_best_that_could_not_be_written_is_written_on_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise PortdetError("no space")

    monkeypatch.setattr(checkpoint, "save_weights", full)
    with pytest.raises(PortdetError, match="no space"):
        train(tmp_path)[0].run()
    monkeypatch.undo()
    trainer, _ = train(tmp_path)
    trainer.resume()
    trainer.validate = lambda session, epoch: {"AP": 0.5}
    trainer.run()
    assert checkpoint.load_weights(trainer.best)[1]["epoch"] == 1


def test_without_average_the_best_are_the_raw_weights(tmp_path: Path) -> None:
    trainer, session = train(tmp_path, settings(ema__kind="none", train__epochs=1))
    trainer.run()
    arrays, about = checkpoint.load_weights(trainer.best)
    assert about["weights"] == "raw"
    assert arrays["head.bias"] == session.w["head.bias"]


def test_an_average_without_an_update_is_not_evaluated(tmp_path: Path) -> None:
    config = settings(train__epochs=1, ema__kind="threshold", optim__loss_scale="dynamic")
    trainer, _ = train(tmp_path, config, overflow_at=(0, 1, 2, 3, 4))
    trainer.run()
    assert checkpoint.load_weights(trainer.best)[1]["weights"] == "raw"


def test_what_is_printed(tmp_path: Path) -> None:
    trainer, _ = train(tmp_path, settings(optim__loss_scale="dynamic"), overflow_at=(7,))
    out = io.StringIO()
    with Progress(3, 5, batch=2, log_every=5, stream=out) as trainer.observer:
        trainer.run()
    lines = out.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        *("epoch 1/3", "epoch 1/3"),
        "step 7: gradients overflow at loss scale 65536; the step is skipped (1 so far)",
        *("epoch 2/3", "epoch 2/3", "epoch 3/3", "epoch 3/3"),
    ]
    results = rows(tmp_path / "results.csv")
    assert f"  AP {float(results[0]['AP']):.3f}  AP50 " in lines[1]
    assert lines[1].endswith("best so far")


@pytest.mark.parametrize("side", [64, 512])
def test_cost_of_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    """Around a step the loop makes some sixty calls, whatever the size, and hashes 8 kB an image (of 3 MB)."""
    hashed: list[int] = []

    class Counted:
        def __init__(self, **options: Any) -> None:
            self.digest = hashlib.blake2b(**options)

        def update(self, data: Any) -> None:
            hashed.append(memoryview(data).nbytes)
            self.digest.update(data)

        def hexdigest(self) -> str:
            return self.digest.hexdigest()

    session, big = FakeSession(), batch(0, 0, side)
    trainer = Trainer(settings(train__epochs=1), session, FakeLoader(400), tmp_path)
    trainer.weights.mkdir()
    with trainer.steps_log:
        trainer._step(big, batch_hash(big))
        with Calls() as whole:
            trainer._step(big, batch_hash(big))
        with Calls() as bare:
            session.train_step(big, session.values_seen[-1])
    assert whole.number - bare.number < 150
    assert os.path.getsize(tmp_path / "steps.csv") > 0
    monkeypatch.setattr(fingerprint, "hashlib", SimpleNamespace(blake2b=Counted))
    assert batch_hash(big) != ""
    assert 0 < sum(hashed) < len(big.images) * 10_000
