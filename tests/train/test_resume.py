"""A run that is stopped anywhere, in any way, and resumed ends with the bits of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from portdet.data import open_datasets
from portdet.data.loader import TrainLoader
from portdet.errors import PortdetError
from portdet.train import checkpoint
from portdet.train.interrupt import Interrupted, StopRequest
from portdet.train.loop import Trainer
from tests.patience import GUARD, until
from tests.train.fakes import FakeLoader, FakeSession, files, resumed, rows, score, settings, train


@pytest.mark.parametrize("kind", ["none", "exponential", "threshold"])
@pytest.mark.parametrize("stop_at", [0, 2, 4, 5, 9, 13, 14])
def test_resume_is_bit_identical(tmp_path: Path, kind: str, stop_at: int) -> None:
    config = settings(ema__kind=kind, optim__loss_scale="dynamic")
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    expected = train(whole, config, overflow_at=(1, 7))[0].run()
    with pytest.raises(Interrupted, match=rf"SIGINT after {stop_at + 1} steps(.|\n)*--resume .*halves"):
        train(halves, config, overflow_at=(1, 7), stop_at=stop_at)[0].run()
    # A resumed fake counts its steps from 0 again.
    outcome = resumed(halves, config, overflow_at=tuple(n - stop_at - 1 for n in (1, 7)))
    assert outcome == expected
    assert files(halves) == files(whole)
    one, first = checkpoint.load_state(whole / "weights" / "last.safetensors")
    two, second = checkpoint.load_state(halves / "weights" / "last.safetensors")
    assert {k: v.tobytes() for k, v in one.items()} == {k: v.tobytes() for k, v in two.items()}
    first.seconds = second.seconds = 0.0
    assert first == second
    best = [checkpoint.load_weights(f / "weights" / "best.safetensors") for f in (whole, halves)]
    assert best[0][1] == best[1][1]
    assert {k: v.tobytes() for k, v in best[0][0].items()} == {k: v.tobytes() for k, v in best[1][0].items()}


@pytest.mark.parametrize("lost", ["epoch_step", "ema_updates", "momentum", "loss_sums"])
def test_a_resume_that_forgets_something_is_seen(tmp_path: Path, lost: str) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(whole)[0].run()
    with pytest.raises(Interrupted):
        train(halves, stop_at=7)[0].run()
    trainer, session = train(halves)
    trainer.resume()
    if lost == "momentum":
        session.m = {name: np.zeros(1, np.float32) for name in session.m}
    else:
        setattr(trainer.progress, lost, {} if lost == "loss_sums" else 0)
    with suppress(PortdetError):
        trainer.run()
    one, two = (load_file(folder / "weights" / "last.safetensors") for folder in (whole, halves))
    same_state = all(one[name].tobytes() == two[name].tobytes() for name in one)
    assert not (same_state and files(halves) == files(whole))


def test_a_process_stopped_by_a_signal(tmp_path: Path) -> None:
    """SIGTERM from outside, at whatever step it is then, and at the 151st if it comes so late; the resumed run ends as
    an uninterrupted one."""
    script = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from tests.train.fakes import *
from portdet.train.loop import Trainer
class Slow(FakeSession):
    def train_step(self, batch, values):
        time.sleep(0.02)
        while len(self.values_seen) > 150 and not trainer.stop.signal_name:
            time.sleep(0.01)
        return super().train_step(batch, values)
trainer = Trainer(settings(train__epochs=40), Slow(), FakeLoader(), Path(sys.argv[1]), validate=score)
trainer.run()
"""
    halves, whole = tmp_path / "halves", tmp_path / "whole"
    process = subprocess.Popen([sys.executable, "-c", script, str(halves)], stderr=subprocess.PIPE, text=True)
    until((halves / "weights" / "last.safetensors").exists, "a checkpoint")
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate(timeout=GUARD)
    assert process.returncode == 1
    assert "stopped by SIGTERM" in message
    stopped = checkpoint.load_state(halves / "weights" / "last.safetensors")[1].step
    assert 0 < stopped < 200
    config = settings(train__epochs=40)
    assert resumed(halves, config) == train(whole, config)[0].run()
    assert files(halves) == files(whole)


def test_a_killed_process_loses_only_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train(whole)[0].run()
    trainer, _ = train(halves, settings(train__save_period=1))
    trainer.run()
    kept = halves / "weights" / "epoch1.safetensors"
    with (halves / "steps.csv").open("a") as file:
        file.write("3,1")  # half a line
    again, _ = train(halves)
    again.resume(kept)
    again.run()
    assert files(halves) == files(whole)


def test_a_log_that_an_older_version_began_keeps_its_columns(tmp_path: Path) -> None:
    train(tmp_path, settings(train__max_steps=7))[0].run()
    log = rows(tmp_path / "steps.csv")
    columns = [name for name in log[0] if name != "ema_decay"]
    older = [",".join(columns), *(",".join(row[name] for name in columns) for row in log)]
    (tmp_path / "steps.csv").write_text("\n".join(older) + "\n")
    resumed(tmp_path, settings())
    log = rows(tmp_path / "steps.csv")
    assert (list(log[0]), len(log)) == (columns, 15)
    assert all(row["batch"] for row in log)


def test_max_steps_then_on(tmp_path: Path) -> None:
    train(tmp_path / "whole")[0].run()
    for limit in (3, 5, 8):
        trainer, _ = train(tmp_path / "parts", settings(train__max_steps=limit))
        if limit > 3:
            trainer.resume()
        assert trainer.run().steps == limit
    assert resumed(tmp_path / "parts", settings()).reason == "finished"
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    with pytest.raises(PortdetError, match="has finished its 3 epochs"):
        resumed(tmp_path / "parts", settings())


def test_validation_that_fails_loses_no_step(tmp_path: Path) -> None:
    train(tmp_path / "whole")[0].run()
    trainer, _ = train(tmp_path / "halves")

    def broken(session: Any, epoch: int) -> dict[str, float]:
        if epoch == 1:
            raise RuntimeError("no memory")
        return score(session, epoch)

    trainer.validate = broken
    with pytest.raises(RuntimeError, match="no memory"):
        trainer.run()
    assert checkpoint.load_state(trainer.last)[1].step == 10
    resumed(tmp_path / "halves", settings())
    assert files(tmp_path / "halves") == files(tmp_path / "whole")


def test_a_broken_image_loses_no_step_and_ends_the_workers(tmp_path: Path) -> None:
    loader = FakeLoader(broken_at=(1, 3))
    with pytest.raises(PortdetError, match="image 7"):
        train(tmp_path / "halves", loader=loader)[0].run()
    assert loader.open == 0
    resumed(tmp_path / "halves", settings())
    train(tmp_path / "whole")[0].run()
    assert files(tmp_path / "halves") == files(tmp_path / "whole")


def test_the_second_signal_insists_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal_name == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("workers", [0, 1])
def test_resume_with_the_real_loader(tmp_path: Path, workers: int) -> None:
    """Augmented multi-scale batches, stopped within an epoch; the last epoch is without augmentation."""
    words = {"train_count": 12, "scene_size": 48, "batch": 4, "sizes": [32, 64], "imgsz": 32, "workers": workers}
    config = settings(augment__close_last=1, **{f"data__{key}": value for key, value in words.items()})
    data, _ = open_datasets(config.data, 0)

    def run(folder: Path, stop_at: int, resume: bool = False) -> None:
        session = FakeSession(stop_at=stop_at)
        with TrainLoader(data, config, mean=[0.5] * 3, std=[0.2] * 3, seed=0) as loader:
            trainer = Trainer(config, session, loader, folder, validate=score)
            if resume:
                trainer.resume()
            trainer.run()

    run(tmp_path / "whole", -1)
    with pytest.raises(Interrupted):
        run(tmp_path / "halves", 4)
    run(tmp_path / "halves", -1, resume=True)
    assert files(tmp_path / "halves") == files(tmp_path / "whole")
    assert len({row["batch"] for row in rows(tmp_path / "whole" / "steps.csv")}) == 9
