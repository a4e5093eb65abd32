"""A built wheel, unpacked elsewhere, is complete: help, shipped configurations, style sheet, and a training step."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.patience import GUARD

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=GUARD)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def portdet(unpacked: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the unpacked copy, from a folder that is no checkout."""
    code = (
        "import sys, portdet; assert portdet.__file__.startswith(sys.argv[1]), portdet.__file__;"
        "from portdet.cli.__main__ import run; sys.exit(run(sys.argv[2:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(unpacked), *words],
        capture_output=True,
        text=True,
        timeout=GUARD,
        cwd=unpacked.parent,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
    )


def test_it_holds_the_packages_alone(unpacked: Path) -> None:
    """No tests, and none of the numbers and photographs that they need."""
    packages = {"portdet", "portdet_torch", "portdet_mindspore", "portdet_paddle", "portdet_convert"}
    names = {path.name for path in unpacked.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == packages
    assert sum(path.stat().st_size for path in unpacked.rglob("*")) < 5_000_000


def test_help_and_the_shipped_configurations(unpacked: Path) -> None:
    shown = portdet(unpacked, "--help")
    assert shown.returncode == 0, shown.stderr
    assert "align" in shown.stdout
    model = portdet(unpacked, "show", "model", "yolov3_scenes")
    assert model.returncode == 0, model.stderr


def test_the_demo_s_command_runs(unpacked: Path) -> None:
    tiny = ["epochs=1", "train_count=4", "val_count=2", "batch=2", "imgsz=64", "scene_size=64", "workers=1"]
    done = portdet(unpacked, "align", "yolov3_scenes", "--backends", "torch", *tiny)
    assert done.returncode == 2, done.stdout + done.stderr  # undecided: one backend has nothing to be compared with
    assert (unpacked.parent / "runs" / "align" / "yolov3_scenes" / "align.html").is_file()
