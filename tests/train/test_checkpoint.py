"""Checkpoints: what is written comes back bit for bit, and a failed write leaves the old file and nothing else."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from portdet.errors import PortdetError
from portdet.train import checkpoint
from portdet.train.checkpoint import Progress
from tests.patience import GUARD
from tests.train.fakes import settings

STATE = {
    "weights/a.weight": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "momentum/a.weight": np.full((2, 3), 1e-30, np.float32),
    "ema/a.weight": np.full((2, 3), -0.0, np.float32),
}


def test_state_and_progress_come_back(tmp_path: Path) -> None:
    progress = Progress(
        epoch=3, epoch_step=2, step=17, loss_sums={"loss": 0.1 + 0.2}, best=1 / 3, loss_scale={"scale": 2.0}
    )
    checkpoint.save_state(tmp_path / "last.safetensors", STATE, progress)
    arrays, back = checkpoint.load_state(tmp_path / "last.safetensors")
    assert back == progress
    assert {k: v.tobytes() for k, v in arrays.items()} == {k: v.tobytes() for k, v in STATE.items()}
    assert os.listdir(tmp_path) == ["last.safetensors"]


def test_weights_for_inference(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    checkpoint.save_weights(path, {"a.weight": STATE["weights/a.weight"]}, {"epoch": 4, "weights": "exponential"})
    arrays, about = checkpoint.load_weights(path)
    assert list(arrays) == ["a.weight"] == list(load_file(path))
    assert (about["epoch"], about["weights"], about["format"]) == (4, "exponential", 1)
    with pytest.raises(PortdetError, match="no state to resume from"):
        checkpoint.load_state(path)
    checkpoint.save_state(path, STATE, Progress())
    assert list(checkpoint.load_weights(path)[0]) == ["a.weight"]


def test_non_finite_weights_never_replace_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.save_state(path, STATE, Progress(step=1))
    before = path.read_bytes()
    with pytest.raises(PortdetError, match=r"a\.weight is not finite; last\.safetensors keeps its last good state"):
        checkpoint.save_state(path, {"weights/a.weight": np.array([np.inf], np.float32)}, Progress(step=2))
    assert path.read_bytes() == before


@pytest.mark.parametrize("call", ["os.replace", "os.fsync"])
def test_full_disk_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "last.safetensors"
    checkpoint.save_state(path, STATE, Progress(step=1))
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(call, full)
    with pytest.raises(PortdetError, match=r"last\.safetensors: cannot be written: No space left on device"):
        checkpoint.save_state(path, STATE, Progress(step=2))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.safetensors"]


def test_full_disk_while_writing(tmp_path: Path) -> None:
    """A file-size limit makes the kernel refuse the write half way, as a full disk does."""
    script = """
import resource, sys
from pathlib import Path
import numpy as np
from portdet.errors import PortdetError
from portdet.train import checkpoint
path = Path(sys.argv[1]) / "last.safetensors"
checkpoint.save_state(path, {"weights/a": np.zeros(10, np.float32)}, checkpoint.Progress(step=1))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    checkpoint.save_state(path, {"weights/a": np.zeros(1 << 20, np.float32)}, checkpoint.Progress(step=2))
except PortdetError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=GUARD)
    assert "cannot be written: File too large" in done.stdout, done.stderr
    assert "free space" in done.stdout
    assert os.listdir(tmp_path) == ["last.safetensors"]
    assert checkpoint.load_state(tmp_path / "last.safetensors")[1].step == 1


def test_files_that_are_not_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(PortdetError, match="no checkpoint"):
        checkpoint.load_state(path)
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(PortdetError, match="no metadata"):
        checkpoint.load_state(path)
    checkpoint.save_state(path, STATE, Progress())
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(PortdetError, match="not a complete safetensors file"):
        checkpoint.load_state(path)
    checkpoint.save_state(path, STATE, Progress(format=2))
    with pytest.raises(PortdetError, match="checkpoint format 2"):
        checkpoint.load_state(path)


def test_names_and_shapes_are_checked() -> None:
    path, a = Path("last.safetensors"), np.zeros(3, np.float32)
    checkpoint.check_names({"weights/a": a}, {"weights/a": a}, path)
    with pytest.raises(PortdetError, match=r"'weights/conv1' is missing\n.*known: weights/conv2"):
        checkpoint.check_names({"weights/conv2": a}, {"weights/conv1": a}, path)
    with pytest.raises(PortdetError, match="'weights/b' is unexpected"):
        checkpoint.check_names({"weights/a": a, "weights/b": a}, {"weights/a": a}, path)
    with pytest.raises(PortdetError, match=r"shape \(2,\), the model \(3,\)"):
        checkpoint.check_names({"weights/a": a[:2]}, {"weights/a": a}, path)


def test_only_settings_that_leave_the_numbers_alone_may_change() -> None:
    config, path = settings(), Path("last.safetensors")
    progress = Progress(steps_per_epoch=5, config=checkpoint.config_values(config))
    checkpoint.check_resumable(progress, settings(data__workers=4, train__device="cuda", train__epochs=3), 5, path)
    with pytest.raises(PortdetError, match=r"optim\.lr0 was 0\.05 and is 0\.1"):
        checkpoint.check_resumable(progress, settings(optim__lr0=0.1, optim__warmup_epochs=1.0), 5, path)
    with pytest.raises(PortdetError, match="5 steps and has 6"):
        checkpoint.check_resumable(progress, config, 6, path)
    assert checkpoint.config_hash(config) != checkpoint.config_hash(settings(train__seed=1))
    assert checkpoint.config_hash(config) == checkpoint.config_hash(settings(train__threads=2))
