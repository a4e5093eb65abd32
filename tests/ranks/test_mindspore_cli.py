"""`portdet train --devices 2 --backend mindspore` on CPU: as one process, and what is seen of a rank that fails."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends.harness import ROOT, require
from tests.patience import GUARD

pytestmark = pytest.mark.slow

WORDS = (
    "yolov3_scenes", "--backend", "mindspore", "--mode", "eager", "model.width=0.03125", "model.depths=[1,1,1,1,1]",
    "imgsz=64", "scene_size=64", "train_count=8", "val_count=5", "batch=4", "workers=0", "threads=1", "epochs=1",
)  # fmt: skip
FAULT = """
import os
if os.environ.get("RANK_ID") == "1" and os.environ["MS_ROLE"] == "MS_WORKER":
    from portdet.errors import PortdetError
    from portdet.train.loop import Trainer
    def fail(trainer, *words):
        raise PortdetError("the second rank's card is gone", fix="look for it")
    Trainer._step = fail
"""


def train(folder: Path, *words: str, path: str = "") -> tuple[int, str]:
    """Exit code and all that was printed."""
    require("mindspore")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([path, *map(str, (ROOT, ROOT / "backends"))]).lstrip(":")}
    done = subprocess.run(
        [sys.executable, "-m", "portdet.cli", "train", *WORDS, *words, "--folder", str(folder)],
        env=env, cwd=folder.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=GUARD,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_two_ranks_train_and_validate_as_one_process(tmp_path: Path) -> None:
    for name, devices in (("two", "2"), ("one", "1")):
        code, said = train(tmp_path / name, "--devices", devices)
        assert code == 0, said
        assert "finished after 1 epochs, 2 steps" in said
        assert said.count("5 for validation") == 1  # rank 0 alone prints
        assert "[WARNING]" not in said
        assert "[INFO]" not in said
    two, one = (rows(tmp_path / name / "steps.csv") for name in ("two", "one"))
    assert [row["step"] for row in two] == [row["step"] for row in one]
    assert [float(row["loss"]) for row in two] == pytest.approx([float(row["loss"]) for row in one], rel=1e-3)
    (result,), (wanted,) = (rows(tmp_path / name / "results.csv") for name in ("two", "one"))
    assert float(result["AP50"]) == pytest.approx(float(wanted["AP50"]), abs=0.05)


def test_an_error_of_one_rank_ends_the_run_and_is_shown(tmp_path: Path) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(FAULT)
    code, said = train(tmp_path / "run", "--devices", "2", path=str(tmp_path / "path"))
    assert code != 0
    assert "rank 1: the second rank's card is gone" in said
    assert "look for it" in said
    assert "Traceback" not in said
