"""`portdet train`, stopped and resumed by the command line in new processes: the same bits, on every backend."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.backends.harness import require
from tests.patience import GUARD
from tests.train.fakes import files

TINY = (
    "yolov3_scenes", "model.width=0.03125", "model.depths=[1,1,1,1,1]", "imgsz=64", "scene_size=64", "train_count=8",
    "val_count=4", "batch=4", "workers=0", "threads=1", "epochs=1",
)  # fmt: skip
KINDS = ("none", "constant", "exponential", "threshold", "threshold_exact")
QUICK = {
    *((backend, "1", "exponential") for backend in ("torch", "mindspore", "paddle")),
    *((backend, "2", "threshold") for backend in ("torch", "mindspore", "paddle")),
}


def cases() -> Iterator[object]:
    for backend in ("torch", "mindspore", "paddle"):
        for devices in ("1", "2"):
            for kind in KINDS:
                case = (backend, devices, kind)
                yield pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)


def train(*words: str) -> str:
    """All that the command printed; it must end well."""
    done = subprocess.run(
        [sys.executable, "-m", "portdet", "train", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=GUARD, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(("backend", "devices", "kind"), [*cases()])
def test_a_run_that_is_resumed_ends_with_the_same_bits(tmp_path: Path, backend: str, devices: str, kind: str) -> None:
    require(backend)
    mode = ["mode=eager"] if backend == "mindspore" and devices == "2" else []  # each rank would compile
    words = [*TINY, "--backend", backend, "--devices", devices, f"ema.kind={kind}", *mode]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert "finished after 1 epochs, 2 steps" in train(*words, "--folder", str(whole))
    assert "max_steps after 0 epochs, 1 steps" in train(*words, "--folder", str(parts), "max_steps=1")
    assert "finished after 1 epochs, 2 steps" in train("--resume", str(parts), "max_steps=0")
    assert files(parts) == files(whole)
    for name in ("last", "best"):
        one, two = (load_file(folder / "weights" / f"{name}.safetensors") for folder in (whole, parts))
        assert one.keys() == two.keys()
        assert [key for key in one if one[key].tobytes() != two[key].tobytes()] == []
    last = {key.partition("/")[0] for key in load_file(whole / "weights" / "last.safetensors")}
    assert last == {"weights", "momentum"} | ({"ema"} if kind != "none" else set())
