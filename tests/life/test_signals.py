"""Signals to the real loop: each that asks to stop saves, also from a terminal that closes; two runs of one folder."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from portdet.cli.__main__ import run
from portdet.processes.watch import state
from portdet.train import checkpoint
from portdet.train.earlier import make_room
from portdet.train.interrupt import StopRequest
from tests.life.processes import ENVIRONMENT, began, start
from tests.patience import GUARD, ROOT, until
from tests.train.fakes import files, resumed, rows, settings, train

TRAINS = """
import sys, time
from pathlib import Path
from portdet.processes.alone import alone_in
from portdet.errors import PortdetError
from portdet.report.progress import Progress
from portdet.train.earlier import make_room
from portdet.train.interrupt import Interrupted
from portdet.train.loop import Trainer
from tests.train.fakes import *
class Slow(FakeSession):
    def train_step(self, batch, values):
        time.sleep(0.02)
        return super().train_step(batch, values)
folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
config = settings(train__epochs=int(sys.argv[2]))
with alone_in(folder), Progress(config.train.epochs, 5, batch=2, log_every=1) as progress:
    trainer = Trainer(config, Slow(), FakeLoader(), folder, validate=score, observer=progress)
    if (folder / "weights" / "last.safetensors").exists():
        trainer.resume()
    try:
        trainer.run()
    except Interrupted:
        sys.exit(130)
"""
EPOCHS = 60


def saved(folder: Path) -> int:
    """Steps in the last state."""
    return checkpoint.load_state(folder / "weights" / "last.safetensors")[1].step


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(folder, settings(train__epochs=EPOCHS))[0].run()
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_saves_and_the_run_goes_on_with_the_same_bits(
    tmp_path: Path, whole: Path, number: signal.Signals
) -> None:
    with start(TRAINS, tmp_path, EPOCHS) as process:
        began(process, tmp_path / "results.csv")
        process.send_signal(number)
        assert process.wait(GUARD) == 130
    assert saved(tmp_path) == len(rows(tmp_path / "steps.csv"))
    assert list(tmp_path.rglob(".*")) == []
    resumed(tmp_path, settings(train__epochs=EPOCHS))
    assert files(tmp_path) == files(whole)


def test_a_terminal_that_closes(tmp_path: Path, whole: Path) -> None:
    """The kernel sends SIGHUP, and every line that is printed after it fails."""
    ours, theirs = pty.openpty()
    command = ["-c", "import os, pty, sys, fcntl, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + TRAINS]
    process = subprocess.Popen(
        [sys.executable, *command, str(tmp_path), str(EPOCHS)], stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True, cwd=ROOT, env=ENVIRONMENT,
    )  # fmt: skip
    os.close(theirs)
    try:
        until(lambda: (tmp_path / "results.csv").exists() or state(process.pid) == "dead", "an epoch")
        os.close(ours)
        until(lambda: state(process.pid) == "dead", "dead")
    finally:
        process.kill()
        code = process.wait()
    assert code in (130, 120)  # 120 is Python's own, for a stdout that cannot be flushed at the end
    stopped = saved(tmp_path)
    assert 0 < stopped < EPOCHS * 5
    assert stopped == len(rows(tmp_path / "steps.csv"))
    resumed(tmp_path, settings(train__epochs=EPOCHS))
    assert files(tmp_path) == files(whole)


def test_a_reader_that_goes_away_costs_no_step(tmp_path: Path, whole: Path) -> None:
    """`portdet train | head`."""
    with start(TRAINS, tmp_path, EPOCHS) as process:
        began(process, tmp_path / "results.csv")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(GUARD) != 0
        process.stdout = None
    assert saved(tmp_path) == len(rows(tmp_path / "steps.csv"))
    resumed(tmp_path, settings(train__epochs=EPOCHS))
    assert files(tmp_path) == files(whole)


def test_under_nohup_a_hangup_is_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal_name == "SIGHUP"


def test_a_folder_that_is_deleted_ends_the_run_with_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with start(TRAINS, folder, 100_000) as process:
        began(process, folder / "results.csv")
        folder.rename(tmp_path / "elsewhere")
        assert process.wait(GUARD) == 1
        assert process.stderr is not None
        assert f"{folder}: this folder was deleted, moved or replaced" in process.stderr.read()
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_only_one_of_two_goes_on(tmp_path: Path) -> None:
    with start(TRAINS, tmp_path, 100_000) as one:
        began(one, tmp_path / "results.csv")
        with start(TRAINS, tmp_path, 100_000) as two:
            assert two.wait(GUARD) == 1
            assert two.stderr is not None
            assert f"is in use by process {one.pid}" in two.stderr.read()
        assert one.poll() is None


def test_a_finished_run_is_not_erased(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By --folder, and by a name that is to be used again; what is asked for keeps the earlier run whole."""
    train(tmp_path / "train" / "a")[0].run()
    (tmp_path / "train" / "a" / "args.yaml").write_text("train: {epochs: 3}\n")
    before = {path: path.read_bytes() for path in (tmp_path / "train").rglob("*") if path.is_file()}
    words = ["train", "yolov3_scenes", "max_steps=1", "workers=0"]
    assert run([*words, "--folder", str(tmp_path / "train" / "a")]) == 1
    said = capsys.readouterr().err
    assert f"portdet train --resume {tmp_path / 'train' / 'a'}" in said
    assert "exist_ok=true" in said
    assert {path: path.read_bytes() for path in (tmp_path / "train").rglob("*") if path.is_file()} == before
    for left in ("args.yaml", "results.csv", "steps.csv", "weights/last.safetensors"):
        other = tmp_path / left.replace("/", "_")
        (other / left).parent.mkdir(parents=True)
        (other / left).write_text("")
        assert run([*words, "--folder", str(other)]) == 1
    assert capsys.readouterr().err.count("holds a run already") == 4


def test_an_earlier_run_is_set_aside_whole(tmp_path: Path) -> None:
    said: list[str] = []
    for number in range(1, 4):
        train(tmp_path, settings(train__max_steps=number))[0].run()
        (tmp_path / "args.yaml").write_text(f"{number}")
        (tmp_path / "mine.txt").write_text("of the user")
        kept = {path.relative_to(tmp_path): path.read_bytes() for path in (tmp_path / "weights").rglob("*")}
        make_room(tmp_path, exist_ok=True, say=said.append)
        aside = tmp_path / f"earlier{number}"
        assert said[-1] == f"the run that was in {tmp_path} is now in {aside}"
        assert {path.relative_to(aside): path.read_bytes() for path in (aside / "weights").rglob("*")} == kept
        assert sorted(path.name for path in aside.iterdir()) == ["args.yaml", "results.csv", "steps.csv", "weights"]
        assert len(rows(aside / "steps.csv")) == number
    assert (tmp_path / "mine.txt").exists()
    make_room(tmp_path, exist_ok=False, say=said.append)
    assert len(said) == 3
