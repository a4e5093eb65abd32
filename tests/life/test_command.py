"""`portdet train` itself on PyTorch: two of one folder, modes, a run that saved nothing, a resume that is refused."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from portdet.cli.__main__ import run
from portdet.train import checkpoint
from tests.backends.harness import require
from tests.life.processes import ENVIRONMENT, began, live
from tests.patience import GUARD, ROOT
from tests.train.fakes import rows

TINY = [
    "yolov3_scenes", "epochs=2", "train_count=12", "val_count=3", "val_batch=3", "batch=4", "scene_size=64", "imgsz=64",
    "workers=1", "threads=1", "log_every=1", "seed=3",
]  # fmt: skip


@pytest.fixture(autouse=True)
def torch() -> None:
    require("torch")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "portdet", *words]


def done(*words: str, umask: int = -1) -> subprocess.CompletedProcess[str]:
    """A command to its end."""
    return subprocess.run(
        command(*words),
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=GUARD,
        check=False,
        umask=umask,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    ended = done("train", *TINY, "--folder", str(folder), umask=0o027)
    assert ended.returncode == 0, ended.stderr
    return folder


def assert_same(one: Path, two: Path) -> None:
    (first, _), (second, _) = (checkpoint.load_state(f / "weights" / "last.safetensors") for f in (one, two))
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array.view(np.uint8), second[name].view(np.uint8), err_msg=name)
    assert (one / "steps.csv").read_text() == (two / "steps.csv").read_text()


def test_every_file_of_a_run_has_the_mode_that_the_umask_gives(whole: Path) -> None:
    found = {path.relative_to(whole): stat.S_IMODE(path.stat().st_mode) for path in whole.rglob("*")}
    assert len(found) > 14
    assert {oct(mode) for path, mode in found.items() if (whole / path).is_file()} == {"0o640"}
    assert {oct(mode) for path, mode in found.items() if (whole / path).is_dir()} == {"0o750"}


def test_of_two_resumes_one_is_refused_and_a_kill_leaves_nothing_behind(tmp_path: Path) -> None:
    words = ["train", *TINY, "epochs=500", "--folder", str(tmp_path / "run")]
    with live(command(*words)) as one:
        began(one, tmp_path / "run" / "weights" / "last.safetensors")
        before = (tmp_path / "run" / "args.yaml").read_bytes()
        second = done("train", "--resume", str(tmp_path / "run"), "max_steps=1")
        assert second.returncode == 1
        assert f"is in use by process {one.pid} on" in second.stderr
        assert (tmp_path / "run" / "args.yaml").read_bytes() == before
        one.send_signal(signal.SIGHUP)
        _, error = one.communicate(timeout=GUARD)
        assert one.returncode == 130
        assert "stopped by SIGHUP" in error
    left = tmp_path / "run" / "weights" / ".last.1.safetensors"
    left.write_bytes(b"half of it")
    steps = len(rows(tmp_path / "run" / "steps.csv"))
    third = done("train", "--resume", str(tmp_path / "run"), f"max_steps={steps + 1}")
    assert third.returncode == 0, third.stderr
    assert "removed 1 temporary file that killed runs left" in third.stderr
    assert not left.exists()
    assert [row["step"] for row in rows(tmp_path / "run" / "steps.csv")] == [str(n) for n in range(steps + 1)]


def test_a_run_that_saved_nothing_starts_again_from_the_same_weights(tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "run"
    with live(command("train", *TINY, "--folder", str(folder))) as one:
        began(one, folder / "session.json")
        one.kill()
        one.wait()
    assert not (folder / "weights" / "last.safetensors").exists()
    session = (folder / "session.json").read_text()
    again = done("train", "--resume", str(folder))
    assert again.returncode == 0, again.stderr
    assert "starts from its beginning" in again.stdout
    assert (folder / "session.json").read_text() == session
    assert_same(folder, whole)
    os.unlink(folder / "results.csv")
    for path in (folder / "weights").iterdir():
        path.unlink()
    (folder / "session.json").write_text(session.replace('"initial_weights": "', '"initial_weights": "0'))
    other = done("train", "--resume", str(folder))
    assert other.returncode == 1
    assert "began from other weights" in other.stderr


def test_a_resume_that_is_refused_changes_nothing(tmp_path: Path, whole: Path) -> None:
    """Another learning rate: args.yaml keeps the run's own, so that it can go on."""
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    refused = done("train", "--resume", str(whole), "lr0=0.5", "epochs=3")
    assert refused.returncode == 1
    assert "not the same training" in refused.stderr
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_what_exist_ok_asks_for_keeps_the_earlier_run(tmp_path: Path, whole: Path) -> None:
    words = ["train", *TINY, f"project={tmp_path}", "name=a", "max_steps=1"]
    assert done(*words).returncode == 0
    kept = (tmp_path / "train" / "a" / "steps.csv").read_bytes()
    again = done(*words, "exist_ok=true", "seed=9")
    assert again.returncode == 0, again.stderr
    assert f"is now in {tmp_path / 'train' / 'a' / 'earlier1'}" in again.stdout
    assert (tmp_path / "train" / "a" / "earlier1" / "steps.csv").read_bytes() == kept
    assert (tmp_path / "train" / "a" / "steps.csv").read_bytes() != kept
    resumed = done("train", "--resume", str(tmp_path / "train" / "a" / "earlier1"), "max_steps=2")
    assert resumed.returncode == 0, resumed.stderr


def test_an_alignment_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "align" / "a"
    words = ["align", "yolov3_scenes", "--backends", "torch", "--level", "ops", f"project={tmp_path}", "name=a"]
    with live(command(*words)) as one:
        began(one, folder / "plan.json")
        assert run(["align", "--resume", str(folder)]) == 3
        assert f"is in use by process {one.pid} on" in capsys.readouterr().err
        assert run([*words, "exist_ok=true"]) == 3
        assert f"is in use by process {one.pid} on" in capsys.readouterr().err
        assert one.poll() is None
