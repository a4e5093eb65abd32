"""What the tests of conversion share: a small YOLOv3, the peers' files, and a process for each framework."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from portdet.cli.__main__ import run
from portdet_convert import yolov3
from portdet_convert.files.source import Arrays
from tests.counts import Calls
from tests.patience import GUARD

SMALL = {"depths": (1, 1, 2, 1, 1), "channels": (2, 4, 4, 6, 8, 8)}


def _small(outputs: int | None) -> Arrays:
    rng = np.random.default_rng(7)
    arrays: Arrays = {}
    for layer in yolov3.darknet_order(**SMALL, outputs=outputs):
        for name, shape in layer.tensors:
            arrays[name] = rng.standard_normal(shape, dtype=np.float32)
            if name.endswith("running_var"):
                arrays[name] = np.abs(arrays[name]) + np.float32(0.1)
    return arrays


@pytest.fixture
def small() -> Arrays:
    """A whole YOLOv3 with few channels and one class, under canonical names."""
    return _small(18)


@pytest.fixture
def small_backbone() -> Arrays:
    """Its backbone."""
    return _small(None)


@pytest.fixture(scope="session")
def run_alone() -> Callable[[str, Path], str]:
    """Run a script in a Python process of its own, in a folder: Paddle and MindSpore cannot share one."""

    def run(script: str, folder: Path) -> str:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "ONEDNN_MAX_CPU_ISA": "AVX2"}
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=GUARD,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[bytes, str], None]:
    """Both commands on a file of these bytes: exit code 1 and an error that names the file and fits the pattern.

    And nothing else: no traceback, no file made or left, the old output as it was, little memory, few calls.
    """
    monkeypatch.chdir(tmp_path)

    def check(data: bytes, match: str) -> None:
        Path("bad").write_bytes(data)
        Path("out.npz").write_bytes(b"old")
        for command in (["weights", "show", "bad"], ["convert", "bad", "-o", "out.npz"]):
            tracemalloc.start()
            with Calls() as calls:
                code = run(command)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            out, err = capfd.readouterr()
            assert code == 1, out
            assert err.startswith("error: bad"), err
            assert re.search(match, err), err
            assert "Traceback" not in out + err
            assert peak < 4 * len(data) + (16 << 20), f"{peak} bytes"
            assert calls.number < 300_000 + 2 * len(data)  # 37,000 for a file of 5 kB, 62,000 for one of 289 kB
            assert sorted(os.listdir()) == ["bad", "out.npz"]
            assert Path("out.npz").read_bytes() == b"old"

    return check
