"""`portdet train --devices 2 --backend paddle` on CPU: as one process, and what is seen of a rank that fails."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends.harness import ROOT, require
from tests.patience import GUARD, running, until

WORDS = (
    "yolov3_scenes", "--backend", "paddle", "model.width=0.03125", "model.depths=[1,1,1,1,1]", "imgsz=64",
    "scene_size=64", "train_count=8", "val_count=5", "batch=4", "workers=0", "threads=1",
)  # fmt: skip
FAULT = """
import os
if os.environ.get("PADDLE_TRAINER_ID") == "1":
    from portdet.errors import PortdetError
    from portdet.train.loop import Trainer
    def fail(trainer, *words):
        raise PortdetError("the second rank's card is gone", fix="look for it")
    Trainer._step = fail
"""


def start(folder: Path, *words: str, path: str = "") -> subprocess.Popen[str]:
    require("paddle")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([path, *map(str, (ROOT, ROOT / "backends"))]).lstrip(":")}
    return subprocess.Popen(
        [sys.executable, "-m", "portdet.cli", "train", *WORDS, *words, "--folder", str(folder)],
        env=env, cwd=folder.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and all that was printed."""
    try:
        said = process.communicate(timeout=GUARD)[0]
    finally:
        process.kill()
    return process.returncode, said


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_two_ranks_train_and_validate_as_one_process(tmp_path: Path) -> None:
    for name, devices in (("two", "2"), ("one", "1")):
        code, said = end(start(tmp_path / name, "--devices", devices, "epochs=1"))
        assert code == 0, said
        assert "finished after 1 epochs, 2 steps" in said
        assert said.count("5 for validation") == 1  # rank 0 alone prints
    two, one = (rows(tmp_path / name / "steps.csv") for name in ("two", "one"))
    assert [row["step"] for row in two] == [row["step"] for row in one]
    assert [float(row["loss"]) for row in two] == pytest.approx([float(row["loss"]) for row in one], rel=1e-3)
    results = rows(tmp_path / "two" / "results.csv")
    assert len(results) == 1
    assert float(results[0]["AP50"]) == pytest.approx(
        float(rows(tmp_path / "one" / "results.csv")[0]["AP50"]), abs=0.05
    )
    logs = sorted(path.name for path in (tmp_path / "two" / "ranks").glob("workerlog.*"))
    assert logs == ["workerlog.0", "workerlog.1"]


def test_an_error_of_one_rank_ends_the_run_and_is_shown(tmp_path: Path) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(FAULT)
    code, said = end(start(tmp_path / "run", "--devices", "2", "epochs=1", path=str(tmp_path / "path")))
    assert code != 0
    assert "rank 1: the second rank's card is gone" in said
    assert "look for it" in said
    assert "Traceback" not in said


def test_a_rank_that_is_killed_ends_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder, "--devices", "2", "epochs=500")
    until(lambda: (folder / "results.csv").exists() or process.poll() is not None, "the end of an epoch")
    assert process.poll() is None
    first, second = (int((folder / "ranks" / f"rank{rank}.pid").read_text()) for rank in range(2))
    os.kill(second, signal.SIGKILL)
    code, said = end(process)
    assert code != 0
    assert "rank 0 cannot go on" in said or "rank 1 status failed" in said  # who sees it first
    assert "ranks without a word" in said
    until(lambda: not running(first) and not running(second), "the end of both ranks")
