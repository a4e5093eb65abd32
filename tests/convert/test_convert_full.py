"""A darknet53.conv.74 of full size, built by the published layout: correct, at little cost, and in little memory."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from portdet_convert import convert, load_canonical, yolov3
from tests.counts import Calls

SIZE = 162_482_580  # bytes of the published file
FORMATS = ["ckpt", "npz", "pdparams", "pth", "safetensors"]


def convolutions() -> Iterator[tuple[int, int, int]]:
    """(in, out, kernel) of darknet53.cfg up to layer 74, written down from the cfg and not from our order."""
    yield 3, 32, 3
    for wide, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        yield wide // 2, wide, 3
        for _ in range(blocks):
            yield wide, wide // 2, 1
            yield wide // 2, wide, 3


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("full") / "darknet53.conv.74"
    values = np.random.default_rng(1).random(40_620_640, dtype=np.float32)  # positive: any of them may be a variance
    path.write_bytes(struct.pack("<3iQ", 0, 2, 0, 32_013_312) + values.tobytes())
    assert path.stat().st_size == SIZE
    return path


def test_every_value_lands_where_the_layout_says(full: Path, tmp_path: Path) -> None:
    values = np.fromfile(full, np.float32, offset=20)
    convert(full, tmp_path / "w.safetensors")
    arrays, position = load_file(tmp_path / "w.safetensors"), 0
    order = [layer.name for layer in yolov3.backbone_layers()]
    assert len(order) == len(list(convolutions())) == 52
    for name, (cin, cout, kernel) in zip(order, convolutions(), strict=True):
        for leaf in ("norm.bias", "norm.weight", "norm.running_mean", "norm.running_var"):
            assert np.array_equal(arrays[f"{name}.{leaf}"], values[position : position + cout])
            position += cout
        count = cout * cin * kernel**2
        weight = values[position : position + count].reshape(cout, cin, kernel, kernel)
        assert np.array_equal(arrays[f"{name}.conv.weight"], weight)
        position += count
    assert position == len(values)


@contextmanager
def _costs_little() -> Iterator[None]:
    """Measured: 1.0006 of the size written, 0.0012 read by calls, 65,000 to 670,000 calls of functions."""
    before = psutil.Process().io_counters()
    with Calls() as calls:
        yield
    after = psutil.Process().io_counters()
    assert after.write_chars - before.write_chars < 1.01 * SIZE
    assert after.read_chars - before.read_chars < 0.01 * SIZE
    assert calls.number < 2_000_000


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_and_back_to_the_same_bytes(full: Path, tmp_path: Path, form: str) -> None:
    """Each way writes the file's size once, maps what it reads, and loops over tensors, not over 40 million values."""
    with _costs_little():
        report = convert(full, tmp_path / f"w.{form}")
    assert len(report.rows) == 260
    with _costs_little():
        convert(tmp_path / f"w.{form}", tmp_path / "back.conv.74")
    back = np.memmap(tmp_path / "back.conv.74", np.float32, "r", offset=20)
    assert np.array_equal(back, np.memmap(full, np.float32, "r", offset=20))


def test_as_pretrained_weights_of_the_whole_model(full: Path) -> None:
    names = {name: shape for layer in yolov3.darknet_order(outputs=255) for name, shape in layer.tensors}
    arrays, report = load_canonical(full, names)
    assert (len(report.loaded), len(report.missing), len(names)) == (260, 106, 366)
    assert sum(array.size for array in arrays.values()) == 40_620_640


def _peak_mib(script: str, folder: Path) -> float:
    """Peak resident memory of a script, mapped files included."""
    paths = [str(Path(__file__).parents[2] / name) for name in (".", "weights_convert")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    # of this program alone: ru_maxrss would begin with what the process that started it had
    script += "\nprint(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1]) / 1024


@pytest.mark.parametrize("form", ["ckpt", *(pytest.param(f, marks=pytest.mark.slow) for f in FORMATS[1:])])
def test_peak_memory(full: Path, tmp_path: Path, form: str) -> None:
    """At most 1.5 times the file above an idle interpreter, in both directions; mapping it is 1.0 of that."""
    idle = _peak_mib("import portdet_convert", tmp_path)
    there = _peak_mib(f"from portdet_convert import convert; convert({str(full)!r}, 'w.{form}')", tmp_path)
    back = _peak_mib(f"from portdet_convert import convert; convert('w.{form}', 'w.weights')", tmp_path)
    assert max(there, back) - idle < 1.5 * SIZE / 2**20, (idle, there, back)
