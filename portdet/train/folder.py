"""Run folders: `runs/<verb>/<name>`, then `<name>2`, `<name>3`; each says what was asked and where it ran."""

from __future__ import annotations

import itertools
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import portdet
from portdet.config import Config
from portdet.errors import PortdetError
from portdet.files import write_text
from portdet.outside import plain
from portdet.processes.cores import cores

DISTRIBUTIONS = (
    "portdet",
    "torch",
    "torchvision",
    "mindspore",
    "paddlepaddle",
    "paddlepaddle-gpu",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "safetensors",
    "pycocotools",
)


def run_folder(project: str | Path, verb: str, name: str, *, exist_ok: bool = False) -> Path:
    """Make and return the run's folder: the first free of name, name2, name3, ...; with `exist_ok` `name` itself.

    Two processes that ask at the same time get two folders.
    """
    parent = Path(project) / verb
    try:
        parent.mkdir(parents=True, exist_ok=True)
        if exist_ok:
            (parent / name).mkdir(exist_ok=True)
            return parent / name
        for number in itertools.count(1):
            folder = parent / (name if number == 1 else f"{name}{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise PortdetError(
            f"cannot make a folder in {parent}: {error.strerror}", fix="set train.project to a folder you can write"
        ) from None
    raise AssertionError("itertools.count ended")


@contextmanager
def new_folder(
    project: str | Path, verb: str, name: str, *, exist_ok: bool = False, begun: str, given: Path | None = None
) -> Iterator[Path]:
    """`run_folder`, or the folder `given`, for the block. A new one goes again, with what was written into it and the
    folders above that were made for it, if the block fails before a file is there that the pattern `begun` fits: what
    fails so early is a wrong device, field or file.
    """
    target = given or Path(project) / verb / name
    absent = [path for path in (target, *target.parents) if not path.exists()]
    folder = made(given) if given else run_folder(project, verb, name, exist_ok=exist_ok)
    new = target in absent or not (given or exist_ok)
    try:
        yield folder
    except BaseException:
        if new and next(folder.glob(begun), None) is None:
            shutil.rmtree(folder, ignore_errors=True)
            for path in absent:
                with suppress(OSError):
                    path.rmdir()
        raise


def made(folder: Path) -> Path:
    """The folder, made where it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PortdetError(
            f"cannot make this folder: {error.strerror}", where=plain(str(folder)), fix="name one that you can write"
        ) from None
    return folder


def describe(folder: Path, config: Config) -> None:
    """Write `args.yaml`, the resolved configuration, and `environment.json`."""
    write_text(folder / "args.yaml", config.dump())
    write_text(folder / "environment.json", json.dumps(environment(config), indent=2) + "\n")


def environment(config: Config) -> dict[str, Any]:
    """Versions, machine, device and seed; read from package metadata, so no framework is imported."""
    return {
        "versions": versions(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": cores(),
        "command": sys.argv,
        "git": git_commit(Path(portdet.__file__).parent),
        "backend": config.train.backend,
        "device": config.train.device,
        "mode": config.train.mode,
        "seed": config.train.seed,
    }


def versions() -> dict[str, str]:
    """Installed versions of the packages that numbers depend on."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"portdet": portdet.__version__} | found


def git_commit(folder: Path) -> str | None:
    """Commit of the checkout that holds `folder`, '+changes' appended if it has any; None outside of a checkout."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()
