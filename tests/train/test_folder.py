"""Run folders: numbering, races, what is written into them."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest

from portdet.config import load
from portdet.errors import PortdetError
from portdet.train.folder import describe, git_commit, run_folder
from tests.patience import GUARD
from tests.train.fakes import settings


def test_numbers_go_up(tmp_path: Path) -> None:
    made = [run_folder(tmp_path / "runs", "train", "demo").name for _ in range(3)]
    assert made == ["demo", "demo2", "demo3"]
    assert run_folder(tmp_path / "runs", "train", "demo", exist_ok=True).name == "demo"
    assert run_folder(tmp_path / "runs", "val", "demo").parent.name == "val"


def test_two_at_once_get_two_folders(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda _: run_folder(tmp_path, "train", "x"), range(64)))
    assert len(set(made)) == 64


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PortdetError, match=r"cannot make a folder(.|\n)*train.project"):
        run_folder(tmp_path / "file", "train", "x")


def test_args_and_environment(tmp_path: Path) -> None:
    config = settings(train__name="demo", train__seed=5)
    describe(tmp_path, config)
    (tmp_path / "again.yaml").write_text((tmp_path / "args.yaml").read_text())
    assert load(str(tmp_path / "again.yaml")) == config
    written = json.loads((tmp_path / "environment.json").read_text())
    assert written["versions"]["numpy"] == numpy.__version__
    assert (written["seed"], written["device"]) == (5, "cpu")


def test_git_commit(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgSign=false"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "a").write_text("1")
    subprocess.run([*git, "add", "a"], check=True)
    subprocess.run([*git, "commit", "-qm", "a"], check=True)
    commit = git_commit(tmp_path)
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "a").write_text("2")
    assert git_commit(tmp_path) == commit + "+changes"


def test_no_framework_is_imported() -> None:
    script = (
        "import sys, pkgutil, importlib, portdet.train as t\n"
        "for m in pkgutil.iter_modules(t.__path__): importlib.import_module('portdet.train.' + m.name)\n"
        "from portdet.train.folder import environment; from portdet.config import Config; environment(Config())\n"
        "print({'torch', 'mindspore', 'paddle'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=GUARD, check=True)
    assert done.stdout.strip() == "set()"
