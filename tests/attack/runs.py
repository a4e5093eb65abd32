"""Small trainings by the real command, and whether one that was ended and resumed is the one that never was."""

from __future__ import annotations

import csv
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from portdet.errors import PortdetError
from portdet.train import checkpoint
from tests.patience import ROOT, SLOW_GUARD, running, until

BACKENDS = ("torch", "mindspore", "paddle")
KINDS = ("none", "constant", "exponential", "threshold", "threshold_exact")
EPOCHS, STEPS = 3, 3  # of each
UMASK = 0o027
CLOCK = ("time", "images_per_s")  # columns of results.csv that no two runs share
TINY = [
    "yolov3_scenes", f"epochs={EPOCHS}", f"train_count={4 * STEPS}", "val_count=3", "val_batch=3", "batch=4",
    "scene_size=64", "imgsz=64", "model.width=0.0625", "threads=1", "log_every=1", "seed=3",
]  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One configuration that is trained; `devices` ranks."""

    backend: str
    kind: str = "none"
    dynamic: bool = False
    workers: int = 0
    devices: int = 1

    def __str__(self) -> str:
        scale = "dynamic" if self.dynamic else "static"
        ranks = f", {self.devices} ranks" * (self.devices > 1)
        return f"{self.backend}, EMA {self.kind}, {scale} loss scale, {self.workers} workers{ranks}"

    def words(self) -> list[str]:
        return [
            *TINY, f"train.backend={self.backend}", f"ema.kind={self.kind}", f"workers={self.workers}",
            f"loss_scale={'dynamic' if self.dynamic else 8}", f"devices={self.devices}",
        ]  # fmt: skip


class Run:
    """A training in a folder of its own, with a system's temporary folder of its own."""

    def __init__(self, place: Path) -> None:
        self.place, self.folder, self.temporary = place, place / "run", place / "tmp"
        self.log, self.errors = place / "out.txt", place / "err.txt"
        self.temporary.mkdir(exist_ok=True)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """`portdet train words` in a session of its own; what it prints goes to files."""
        path = os.pathsep.join(map(str, (ROOT, ROOT / "backends", ROOT / "weights_convert")))
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TMPDIR": str(self.temporary)}
        with self.log.open("wb") as out, self.errors.open("wb") as error:
            return subprocess.Popen(
                [sys.executable, "-m", "portdet", "train", *words], stdin=subprocess.DEVNULL, stdout=out, stderr=error,
                cwd=ROOT, env=env, start_new_session=True, umask=UMASK,
            )  # fmt: skip

    def new(self, setting: Setting) -> subprocess.Popen[bytes]:
        return self.start(*setting.words(), "--folder", str(self.folder))

    def resume(self) -> subprocess.Popen[bytes]:
        return self.start("--resume", str(self.folder))

    def steps(self) -> int:
        """How many it has told of since it started."""
        return self.log.read_text(errors="replace").count("  step ")

    def reach(self, process: subprocess.Popen[bytes], step: int) -> None:
        """Wait until it has taken `step` steps, 0: until it is about to take the first; or until it has ended."""
        begun = self.folder / "session.json"
        until(
            lambda: process.poll() is not None or (self.steps() >= step if step else begun.exists()),
            f"step {step}", 0.002,
        )  # fmt: skip

    def said(self) -> str:
        """The last lines of its errors."""
        return "\n".join(self.errors.read_text(errors="replace").splitlines()[-4:])


@contextmanager
def new_run() -> Iterator[Run]:
    with tempfile.TemporaryDirectory(prefix="attack-") as place:
        yield Run(Path(place))


def end_of(process: subprocess.Popen[bytes]) -> int:
    """Its exit code; it is killed where it does not end."""
    try:
        return process.wait(SLOW_GUARD)
    finally:
        process.kill()
        process.wait()


_places = tempfile.TemporaryDirectory(prefix="attack-whole-")


@cache
def whole(setting: Setting) -> Run:
    """The training that nobody interrupts."""
    place = Path(_places.name, str(setting).replace(", ", "-").replace(" ", "_"))
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    run = Run(place)
    if code := end_of(run.new(setting)):
        raise PortdetError(f"{setting} ends with code {code} by itself: {run.said()}")
    return run


def differs(run: Run, setting: Setting) -> str:
    """How a finished training, and what lies around it, differs from the uninterrupted one; '' if it does not."""
    other = whole(setting).folder
    for name in ("last", "best"):
        if word := _arrays(run.folder / "weights" / f"{name}.safetensors", other / "weights" / f"{name}.safetensors"):
            return f"{name}: {word}"
    first, second = (checkpoint.load_state(f / "weights" / "last.safetensors")[1] for f in (run.folder, other))
    first.seconds = second.seconds = 0.0
    if first != second:
        return f"progress {first} is not {second}"
    for name in ("steps.csv", "results.csv"):
        if (one := _rows(run.folder / name)) != (two := _rows(other / name)):
            return f"{name}: {len(one)} rows, {len(two)} without interruption; first that differs: " + str(
                next((pair for pair in zip(one, two, strict=False) if pair[0] != pair[1]), "its length")
            )
    return left_over(run) or _modes(run.folder)


def left_over(run: Run) -> str:
    """Hidden files in the run's folder, and ours in the system's."""
    found = [*run.folder.rglob(".*"), *run.temporary.glob("portdet-*")]
    return f"left over: {', '.join(str(path.relative_to(run.place)) for path in found)}" if found else ""


def gone(pids: list[int]) -> None:
    """Wait until none of the processes lives."""
    until(lambda: not any(map(running, pids)), f"the end of {pids}")


def _arrays(one: Path, two: Path) -> str:
    first, second = (checkpoint.load_weights(path)[0] if path.stem == "best" else checkpoint.load_state(path)[0]
                     for path in (one, two))  # fmt: skip
    if first.keys() != second.keys():
        return f"other names: {sorted(first.keys() ^ second.keys())[:3]}"
    unlike = [name for name in first if first[name].tobytes() != second[name].tobytes()]
    return f"{len(unlike)} of {len(first)} arrays have other bits, {unlike[0]} first" if unlike else ""


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{key: cell for key, cell in row.items() if key not in CLOCK} for row in csv.DictReader(file)]


def _modes(folder: Path) -> str:
    for path in folder.rglob("*"):
        mode, wanted = stat.S_IMODE(path.stat().st_mode), (0o777 if path.is_dir() else 0o666) & ~UMASK
        if mode != wanted:
            return f"{path.relative_to(folder)} has mode {mode:o}, the umask gives {wanted:o}"
    return ""
