"""`portdet train --devices 2` with a rank that somebody has stopped: it is named, and the run ends with all saved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from portdet.cli.__main__ import run
from portdet.train import checkpoint
from tests.backends.harness import require
from tests.life.processes import began, live
from tests.patience import GUARD, running, until
from tests.train.fakes import rows

TINY = [
    "yolov3_scenes", "epochs=500", "train_count=16", "val_count=3", "val_batch=2", "batch=4", "scene_size=64",
    "imgsz=64", "threads=1", "log_every=1", "seed=3", "devices=2",
]  # fmt: skip
SOON = (
    "from portdet.processes import watch; watch.SILENT, watch.STOPPED = 1.0, {stopped}; "
    "from portdet.cli.__main__ import main; main()"
)


@pytest.fixture(autouse=True)
def torch() -> None:
    require("torch")


def stop(folder: Path, rank: int, *, worker: bool) -> int:
    pid = int((folder / "ranks" / f"rank{rank}.pid").read_text())
    if worker:
        below = psutil.Process(pid).children(recursive=True)
        pid = next(child.pid for child in below if "multiprocessing.spawn" in " ".join(child.cmdline()))
    os.kill(pid, signal.SIGSTOP)
    return pid


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, error = process.communicate(timeout=GUARD)
    return process.returncode, error


@pytest.mark.parametrize(
    ("rank", "worker"),
    [(1, False), pytest.param(0, False, marks=pytest.mark.slow), pytest.param(1, True, marks=pytest.mark.slow)],
)
def test_a_signal_ends_ranks_of_which_one_is_stopped(tmp_path: Path, rank: int, worker: bool) -> None:
    script = SOON.format(stopped=3000.0)
    words = [*TINY, f"workers={int(worker)}", "--folder", str(tmp_path)]
    with live([sys.executable, "-c", script, "train", *words]) as process:
        began(process, tmp_path / "weights" / "last.safetensors")
        pids = [int((tmp_path / "ranks" / f"rank{rank}.pid").read_text()) for rank in (0, 1)]
        pid = stop(tmp_path, rank, worker=worker)
        assert process.stderr is not None
        line = process.stderr.readline()
        what = f"a process of rank {rank}" if worker else f"rank {rank}"
        assert line.startswith(f"{what} (process {pid}, stopped) has given no sign of life for")
        assert run(["train", "--resume", str(tmp_path)]) == 1, "they have the folder"
        process.send_signal(signal.SIGTERM)
        code, error = ended(process)
        assert code == 130, error
        assert f"portdet train --resume {tmp_path}" in error
        until(lambda: not any(map(running, pids)), "the end of both ranks")
    saved = checkpoint.load_state(tmp_path / "weights" / "last.safetensors")[1].step
    assert [row["step"] for row in rows(tmp_path / "steps.csv")] == [str(step) for step in range(saved)]
    assert list(tmp_path.rglob(".*")) == []


@pytest.mark.slow
@pytest.mark.parametrize("worker", [False, True])
def test_a_rank_that_stays_stopped_ends_the_run_with_all_saved(tmp_path: Path, worker: bool) -> None:
    words = [*TINY, f"workers={int(worker)}", "--folder", str(tmp_path)]
    with live([sys.executable, "-c", SOON.format(stopped=4.0), "train", *words]) as process:
        began(process, tmp_path / "weights" / "last.safetensors")
        pid = stop(tmp_path, 1, worker=worker)
        code, error = ended(process)
    assert code == 1, error
    assert f"(process {pid}) has been stopped for" in error
    assert f"portdet train --resume {tmp_path}" in error
    saved = checkpoint.load_state(tmp_path / "weights" / "last.safetensors")[1].step
    assert [row["step"] for row in rows(tmp_path / "steps.csv")] == [str(step) for step in range(saved)]


@pytest.mark.slow
def test_a_folder_of_ranks_that_is_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with live([sys.executable, "-m", "portdet", "train", *TINY, "workers=0", "--folder", str(folder)]) as process:
        began(process, folder / "weights" / "last.safetensors")
        folder.rename(tmp_path / "elsewhere")
        code, error = ended(process)
    assert code == 1
    assert "deleted, moved or replaced" in error
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
