"""Commands that are started in, and resume, a run folder of somebody else's: nothing in it is run as code."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from portdet.processes.child import environment
from tests.backends.foreign import compiled, plant
from tests.backends.harness import ROOT, require
from tests.patience import GUARD

TINY = (
    "yolov3_scenes", "model.width=0.03125", "model.depths=[1,1,1,1,1]", "imgsz=64", "scene_size=64", "train_count=8",
    "val_count=4", "batch=4", "workers=0", "threads=1", "epochs=1", "mode=eager", "max_steps=1",
)  # fmt: skip
BY_NAME, BY_SCRIPT = ("-m", "portdet"), ("bin/portdet",)  # as `pip install` leaves it
RESUME = ("train", "--resume", ".", "max_steps=2", "data.workers=1")
QUICK = [
    *((backend, BY_NAME, RESUME) for backend in ("torch", "mindspore", "paddle")),
    ("torch", BY_SCRIPT, RESUME),
    ("torch", BY_SCRIPT, (*RESUME, "devices=2")),
    ("torch", BY_NAME, ("conformance", "--backend", "torch", "--section", "table")),
    ("torch", BY_SCRIPT, ("doctor", "--backend", "torch")),
    ("paddle", BY_SCRIPT, ("doctor", "--backend", "paddle")),
]
SLOW = [(backend, BY_NAME, (*RESUME, "devices=2")) for backend in ("torch", "mindspore", "paddle")]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A backend's run folder after one step."""

    @functools.cache
    def make(backend: str) -> Path:
        require(backend)
        folder = tmp_path_factory.mktemp(backend)
        portdet(folder, BY_NAME, "train", *TINY, "--backend", backend, "--folder", "run")
        return folder / "run"

    return make


def portdet(folder: Path, how: tuple[str, ...], *words: str) -> None:
    """The command, started in `folder`; it must end well."""
    script = folder.parent / "bin" / "portdet"
    if how == BY_SCRIPT:
        script.parent.mkdir(exist_ok=True)
        script.write_text("from portdet.cli.__main__ import main\n\nif __name__ == '__main__':\n    main()\n")
        how = (str(script),)
    path = os.pathsep.join(map(str, (ROOT, ROOT / "backends", ROOT / "weights_convert")))
    done = subprocess.run(
        [sys.executable, *how, *words], cwd=folder, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=GUARD, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("backend", "how", "words"), [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_nothing_in_a_run_folder_runs(
    tmp_path: Path, begun: Callable[[str], Path], backend: str, how: tuple[str, ...], words: tuple[str, ...]
) -> None:
    folder, ran = tmp_path / "run", tmp_path / "ran"
    shutil.copytree(begun(backend), folder)
    plant(folder, ran, [f"model_{backend}"])
    portdet(folder, how, *words)
    assert not ran.exists(), ran.read_text()
    if "--resume" in words:
        assert len((folder / "steps.csv").read_text().splitlines()) == 3


def test_a_compiled_source_would_have_run(tmp_path: Path) -> None:
    """What the test plants, imported as Python imports a file."""
    compiled(tmp_path / "__pycache__" / "model.cpython-311.pyc", tmp_path / "ran")
    (tmp_path / "model.py").write_text("x = 1\n")
    subprocess.run(
        [sys.executable, "-c", "import model"], cwd=tmp_path, capture_output=True, timeout=GUARD, check=False
    )
    assert (tmp_path / "ran").exists()


def test_children_look_for_modules_beside_the_package_and_not_in_it() -> None:
    """Inside it, `import config` or `import source` would find ours instead of somebody else's."""
    path = [Path(entry).resolve() for entry in environment({})["PYTHONPATH"].split(os.pathsep)]
    package = ROOT / "portdet"
    assert ROOT in path
    assert [entry for entry in path if entry == package or package in entry.parents] == []
