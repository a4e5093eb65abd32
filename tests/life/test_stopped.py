"""A data worker that somebody has stopped is named, and neither it nor a slow one keeps a run from ending in order."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.config import Config
from portdet.data import open_datasets
from portdet.data.loader import EvalLoader, TrainLoader
from portdet.data.records import Dataset
from portdet.data.workers import Cancelled, Workers
from portdet.errors import PortdetError
from portdet.processes import watch
from portdet.processes.watch import Silence, state
from portdet.session import Batch, StepResult, StepValues
from portdet.train.interrupt import Interrupted
from portdet.train.loop import Trainer
from tests.life.processes import start
from tests.life.slow_tasks import Task, large, slow
from tests.patience import GUARD, until
from tests.train.fakes import FakeLoader, FakeSession, files, score, settings

WORDS = {"train_count": 12, "val_count": 4, "scene_size": 48, "batch": 4, "imgsz": 32, "workers": 1, "val_batch": 2}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes become tenths of a second; no verdict hangs on them."""
    monkeypatch.setattr(watch, "SILENT", 0.2)
    monkeypatch.setattr(watch, "STOPPED", 1.5)
    monkeypatch.setattr("portdet.data.workers.TICK", 0.1)


def scenes() -> tuple[Config, Dataset]:
    config = settings(**{f"data__{key}": value for key, value in WORDS.items()})
    return config, open_datasets(config.data, 0)[0]


def pids(workers: Workers) -> list[int]:
    return [worker.process.pid or 0 for worker in workers._workers]


def test_states_are_told_apart() -> None:
    with start("import time; print(flush=True); time.sleep(600)") as process:
        assert process.stdout is not None
        process.stdout.readline()
        until(lambda: state(process.pid) == "asleep", "asleep")
        process.send_signal(signal.SIGSTOP)
        until(lambda: state(process.pid) == "stopped", "stopped")
        process.kill()
        until(lambda: state(process.pid) == "dead", "dead")  # a zombie as yet
    assert state(process.pid) == "dead"


def test_time_in_which_we_were_stopped_ourselves_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(watch, "state", lambda pid: "stopped")
    monkeypatch.setattr(watch, "STOPPED", 300.0)
    silence = Silence("data worker 1 of 1", 1, lambda line: None)
    now[0] = 100_000.0
    silence.tick()
    assert silence.stopped <= 2.0


def test_a_stopped_worker_is_named_and_then_ends_the_pass() -> None:
    said: list[str] = []
    workers = Workers(large, 1, 4)
    workers.say = said.append
    passes = workers.run([Task(0), Task(1), Task(2), Task(3)])
    next(passes)
    (pid,) = pids(workers)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(PortdetError, match=rf"data worker 1 of 1 \(process {pid}\) has been stopped for .* s"):
        list(passes)
    told = [line for line in said if f"data worker 1 of 1 (process {pid}, stopped) has given no sign of life" in line]
    assert len(told) > 1, "it is said again"
    assert f"kill -CONT {pid}" in told[0]
    workers.close()
    assert state(pid) == "dead"


def test_a_worker_stopped_in_the_middle_of_a_long_answer(tmp_path: Path) -> None:
    """Its answer fills the pipe before anybody reads it, so that it is stopped while it writes."""
    workers = Workers(large, 1, 4)
    passes = workers.run([Task(number) for number in range(4)])
    next(passes)
    (pid,) = pids(workers)
    until(lambda: state(pid) == "asleep", "asleep")
    os.kill(pid, signal.SIGSTOP)
    until(lambda: state(pid) == "stopped", "stopped")
    with pytest.raises(PortdetError, match="has been stopped"):
        list(passes)
    os.kill(pid, signal.SIGCONT)
    workers.close()


def test_a_continued_worker_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STOPPED", 300.0)
    workers = Workers(large, 2, 4)
    seen: list[str] = []

    def say(line: str) -> None:
        seen.append(line)
        for pid in pids(workers):
            os.kill(pid, signal.SIGCONT)

    workers.say = say
    passes = workers.run([Task(number) for number in range(8)])
    found = [next(passes)]
    for pid in pids(workers):
        os.kill(pid, signal.SIGSTOP)
    found += list(passes)
    assert [int(extras[0][0]) for _, _, extras in found] == list(range(8))
    assert seen
    workers.close()


def test_a_slow_worker_is_waited_for() -> None:
    """Longer than a stopped one would be: it is asleep."""
    said: list[str] = []
    workers = Workers(slow, 1, 4)
    workers.say = said.append
    assert len(list(workers.run([Task(0)]))) == 1
    assert any("no sign of life" in line for line in said)
    workers.close()


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM])
def test_a_wait_that_is_cancelled(how: signal.Signals) -> None:
    """The whole group may get the signal that asks us to stop, so that a dead worker is no error then."""
    workers = Workers(large, 1, 4)
    passes = workers.run([Task(number) for number in range(4)])
    next(passes)
    (pid,) = pids(workers)
    workers.cancelled = lambda: True
    os.kill(pid, how)
    with pytest.raises(Cancelled):
        list(passes)
    workers.close()
    assert state(pid) == "dead"


class Stopping(FakeSession):
    """Stops the loader's worker in step `at`, and asks itself to stop while it is waited for."""

    def __init__(self, loader: Any, at: int) -> None:
        super().__init__()
        self.loader, self.at = loader, at

    def train_step(self, batch: Batch, values: StepValues) -> StepResult:
        if len(self.values_seen) == self.at:
            stop_and_ask(self.loader)
        return super().train_step(batch, values)


def stop_and_ask(loader: Any) -> None:
    (pid,) = pids(loader._workers)
    os.kill(pid, signal.SIGSTOP)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()


def test_a_signal_ends_a_run_whose_worker_is_stopped_with_all_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "STOPPED", 300.0)
    config, data = scenes()

    def run(folder: Path, at: int, *, resume: bool = False) -> None:
        with TrainLoader(data, config, mean=[0.5] * 3, std=[0.2] * 3, seed=0) as loader:
            trainer = Trainer(config, Stopping(loader, at), loader, folder, validate=score)
            loader.attend(lambda: bool(trainer.stop), lambda line: None)
            if resume:
                trainer.resume()
            trainer.run()

    run(tmp_path / "whole", -1)
    with pytest.raises(Interrupted, match="stopped by SIGTERM after"):
        run(tmp_path / "halves", 4)
    run(tmp_path / "halves", -1, resume=True)
    assert files(tmp_path / "halves") == files(tmp_path / "whole")


def test_a_worker_that_stays_stopped_ends_the_run_with_all_saved(tmp_path: Path) -> None:
    config, data = scenes()

    class Stops(FakeSession):
        def train_step(self, batch: Batch, values: StepValues) -> StepResult:
            if len(self.values_seen) == 4:
                os.kill(pids(loader._workers)[0], signal.SIGSTOP)
            return super().train_step(batch, values)

    with TrainLoader(data, config, mean=[0.5] * 3, std=[0.2] * 3, seed=0) as loader:
        trainer = Trainer(config, Stops(), loader, tmp_path / "halves", validate=score)
        with pytest.raises(PortdetError, match="has been stopped"):
            trainer.run()
    with TrainLoader(data, config, mean=[0.5] * 3, std=[0.2] * 3, seed=0) as loader:
        again = Trainer(config, FakeSession(), loader, tmp_path / "halves", validate=score)
        again.resume()
        assert again.progress.step > 4, "the steps before it are saved"
        again.run()
        Trainer(config, FakeSession(), loader, tmp_path / "whole", validate=score).run()
    assert files(tmp_path / "halves") == files(tmp_path / "whole")


def test_a_signal_ends_a_validation_whose_worker_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "STOPPED", 300.0)
    config, data = scenes()
    asked: list[int] = []

    def trained(folder: Path, at: int, *, resume: bool = False) -> None:
        with EvalLoader(data, config, mean=[0.5] * 3, std=[0.2] * 3) as loader:

            def validate(session: Any, epoch: int) -> dict[str, float]:
                for number, _ in enumerate(loader):
                    if (epoch, number) == (at, 0):
                        stop_and_ask(loader)
                        asked.append(epoch)
                return score(session, epoch)

            trainer = Trainer(config, FakeSession(), FakeLoader(), folder, validate=validate)
            loader.attend(lambda: bool(trainer.stop), lambda line: None)
            if resume:
                trainer.resume()
            trainer.run()

    trained(tmp_path / "whole", -1)
    with pytest.raises(Interrupted, match="stopped by SIGTERM after 10 steps"):
        trained(tmp_path / "halves", 1)
    assert asked == [1]
    trained(tmp_path / "halves", -1, resume=True)
    assert files(tmp_path / "halves") == files(tmp_path / "whole")


def test_a_child_of_an_alignment_that_is_stopped_is_named() -> None:
    said: list[str] = []
    with start("import time; time.sleep(600)") as process, watch.watching("torch", process.pid, said.append):
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: said, "a line")
        os.kill(process.pid, signal.SIGCONT)
    assert f"torch (process {process.pid}, stopped) has given no sign of life" in said[0]


def test_an_interpreter_ends_although_a_worker_is_stopped_and_nobody_closed_it() -> None:
    script = """
import os, signal
from portdet.data.workers import Workers
from tests.life.slow_tasks import Task, large
if __name__ == "__main__":
    workers = Workers(large, 1, 4)
    passes = workers.run([Task(number) for number in range(4)])
    next(passes)
    os.kill(workers._workers[0].process.pid, signal.SIGSTOP)
"""
    with start(script) as process:
        assert process.wait(GUARD) == 0


def test_the_fakes_are_what_they_say() -> None:
    images = np.empty((1, 1, 2, 2), np.float32)
    assert len(large(Task(3), images)[0]) * 8 > 1 << 20
