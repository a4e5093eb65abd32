"""`portdet convert --check` of PP-YOLO: the proof on each backend, and planted faults that turn it red."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from portdet import versions
from portdet.errors import PortdetError
from portdet.models import load_model
from portdet.spec.init import initial_weights
from portdet_convert import command, files
from portdet_convert.files import safetensors
from portdet_convert.files.source import Arrays

NANO = {"name": "ppyolo", "variant": "nano", "classes": 3}
OWN = [
    ("torch", "pth", "torch.load", None),
    ("torch", "pth", "torch.load", "miemiedetection"),
    pytest.param("mindspore", "ckpt", "mindspore.load_checkpoint", None, marks=pytest.mark.slow),
    pytest.param("paddle", "pdparams", "paddle.load", "ppdet", marks=pytest.mark.slow),
]

OUTPUTS = {"torch": 201, "mindspore": 199, "paddle": 199}
"""The predictions too. A kernel for deformable convolution calls none of the two convolutions that its modules hold."""


@pytest.fixture(scope="module")
def nano() -> Arrays:
    """Every tensor unlike every other, offsets of deformable convolutions too."""
    rng = np.random.default_rng(5)
    weights = initial_weights(load_model(NANO, imgsz=96, batch=1).graph, 1)
    return {n: a if a.ndim == 4 and a.any() else a + rng.random(a.shape, np.float32) / 4 for n, a in weights.items()}


@pytest.fixture
def folder(tmp_path: Path, nano: Arrays, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the weights as w.safetensors, and there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    safetensors.write("w.safetensors", nano)
    return tmp_path


def only(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """Let all other frameworks seem absent."""
    installed = versions.framework
    monkeypatch.setattr(versions, "framework", lambda name: installed(name) if name == backend else None)


def run(*words: str) -> Result:
    return CliRunner().invoke(command.convert, words)


@pytest.mark.parametrize(("backend", "form", "loader", "names"), OWN)
def test_the_frameworks_own_loader_and_model(
    folder: Path, nano: Arrays, monkeypatch: pytest.MonkeyPatch, backend: str, form: str, loader: str, names: str | None
) -> None:
    """In the framework's names, and in a foreign program's, which the model gets through the rules."""
    only(monkeypatch, backend)
    more = ("--names", names) if names else ()
    done = run("w.safetensors", "-o", f"out.{form}", "--check", "--report", "r.json", *more)
    assert done.exit_code == 0, done.exception
    for said in (f"new file read by portdet: {len(nano)} tensors", f"new file read by {loader}: {len(nano)} tensors"):
        assert f"{said}, same bits\n" in done.output
    check = json.loads(Path("r.json").read_text())["check"]
    assert (check["passed"], check["model"], check["side"]) == (True, "ppyolo, variant=nano, classes=3", 96)
    assert f"outputs of {OUTPUTS[backend]} modules and predictions; ppyolo, variant=nano" in done.output, done.output
    (found,) = check["backends"]
    assert (found["backend"], found["absolute"], found["relative"], found["first"]) == (backend, 0.0, 0.0, "")
    assert 0 < found["from_float64"] < 1e-3, "float32 cannot be exact, nor as far as this"


def swap(arrays: Arrays) -> Arrays:
    """Two tensors of one shape change places."""
    a, b = (f"backbone.res5.1.conv2.norm.{leaf}" for leaf in ("bias", "running_mean"))
    return {**arrays, a: arrays[b], b: arrays[a]}


def transpose(arrays: Arrays) -> Arrays:
    """A square 1x1 convolution the other way round: the shape stays."""
    name = "backbone.res2.0.conv1.conv.weight"
    assert arrays[name].shape == (16, 16, 1, 1)
    return {**arrays, name: np.ascontiguousarray(arrays[name].transpose(1, 0, 2, 3))}


@pytest.mark.parametrize(
    ("fault", "count", "first"),
    [(swap, 2, "backbone.res5.1.conv2.norm"), (transpose, 1, "backbone.res2.0.conv1.conv")],
    ids=["swapped", "transposed"],
)
@pytest.mark.parametrize(
    "backend", ["torch", *(pytest.param(b, marks=pytest.mark.slow) for b in ("mindspore", "paddle"))]
)
def test_a_fault_of_the_writer_is_found_and_nothing_is_written(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    fault: Callable[[Arrays], Arrays],
    count: int,
    first: str,
) -> None:
    only(monkeypatch, backend)
    monkeypatch.setitem(files.WRITERS, "npz", lambda path, arrays, *more: files.npz.write(path, fault(arrays), *more))
    Path("out.npz").write_bytes(b"old")
    done = run("w.safetensors", "-o", "out.npz", "--check", "--report", "r.json")
    assert isinstance(done.exception, PortdetError)
    assert f"new file read by portdet: {count} of 270 tensors differ" in done.exception.what
    assert f"{backend}: outputs differ by up to" in done.exception.what
    assert f"first in {first}" in done.exception.what
    assert Path("out.npz").read_bytes() == b"old"
    check = json.loads(Path("r.json").read_text())["check"]
    assert check["passed"] is False
    assert check["backends"][0]["absolute"] > 1e-4
