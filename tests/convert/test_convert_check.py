"""`portdet convert --check`: what it proves, and that it fails when values do not come through."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from portdet import versions
from portdet.errors import PortdetError
from portdet.models import load_model
from portdet.spec.init import initial_weights
from portdet_convert import command, convert, files
from portdet_convert.files import darknet, pth, safetensors
from portdet_convert.files.source import Arrays
from portdet_convert.proof import BackendProof, Proof, Reading
from portdet_convert.proof_child import _require_finite, apart
from portdet_convert.proof_model import fit
from portdet_convert.yolov3 import layers_of

SECTION: dict[str, Any] = {"name": "yolov3", "width": 1 / 32, "depths": (1, 1, 2, 1, 1), "classes": 3}


@pytest.fixture(scope="module")
def thin() -> Arrays:
    """A whole thin YOLOv3, every tensor unlike every other."""
    rng = np.random.default_rng(5)
    weights = initial_weights(load_model(SECTION, imgsz=64, batch=1).graph, 1)
    return {n: a if a.ndim == 4 else a + rng.random(a.shape, np.float32) / 4 for n, a in weights.items()}


@pytest.fixture
def folder(tmp_path: Path, thin: Arrays, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the weights as w.safetensors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    safetensors.write("w.safetensors", thin)
    return tmp_path


def only(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """Let all other frameworks seem absent."""
    installed = versions.framework
    monkeypatch.setattr(versions, "framework", lambda name: installed(name) if name == backend else None)


def run(*words: str) -> Result:
    return CliRunner().invoke(command.convert, words)


@pytest.mark.parametrize(
    ("backend", "form", "loader"),
    [
        ("torch", "pth", "torch.load"),
        ("mindspore", "ckpt", "mindspore.load_checkpoint"),
        ("paddle", "pdparams", "paddle.load"),
    ],
)
def test_the_frameworks_own_loader_and_model(
    folder: Path, thin: Arrays, monkeypatch: pytest.MonkeyPatch, backend: str, form: str, loader: str
) -> None:
    only(monkeypatch, backend)
    done = run("w.safetensors", "-o", f"out.{form}", "--check", "--report", "r.json")
    assert done.exit_code == 0, done.exception
    assert f"new file read by portdet: {len(thin)} tensors, same bits\n" in done.output
    assert f"new file read by {loader}: {len(thin)} tensors, same bits\n" in done.output
    assert f"source read by safetensors.numpy.load_file: {len(thin)} tensors, same bits\n" in done.output
    for other in {"torch", "mindspore", "paddle"} - {backend}:
        assert f"│ {other}" in done.output
    assert done.output.count("not installed, not checked") == 2
    assert sorted(path.name for path in folder.iterdir()) == [f"out.{form}", "r.json", "w.safetensors"]
    check = json.loads(Path("r.json").read_text())["check"]
    assert check["passed"] is True
    assert "width=0.03125, classes=3" in check["model"]
    (found,) = check["backends"]
    assert (found["backend"], found["absolute"], found["relative"], found["first"]) == (backend, 0.0, 0.0, "")
    assert 0 < found["from_float64"] < 1e-4, "float32 cannot be exact, nor as far as this"


def swapped(arrays: Arrays, a: str, b: str) -> Arrays:
    return {**arrays, a: arrays[b], b: arrays[a]}


def test_two_swapped_tensors_are_found_and_nothing_is_written(
    folder: Path, thin: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, "torch")
    names = [f"backbone.layer3.0.conv2.norm.{leaf}" for leaf in ("bias", "running_mean")]
    monkeypatch.setitem(
        files.WRITERS, "pth", lambda path, arrays, *more: pth.write(path, swapped(arrays, *names), *more)
    )
    Path("out.pth").write_bytes(b"old")
    done = run("w.safetensors", "-o", "out.pth", "--check", "--report", "r.json")
    assert done.exit_code == 1
    error = done.exception
    assert isinstance(error, PortdetError)
    assert error.where == "out.pth"
    assert f"new file read by portdet: 2 of {len(thin)} tensors differ, first '{names[0]}'" in error.what
    assert "torch: outputs differ by up to" in error.what
    assert "first in backbone.layer3.0.conv2.norm" in error.what
    assert "torch.load" not in error.what, "what is in the file, torch reads right"
    assert f"new file read by torch.load: {len(thin)} tensors, same bits" in done.output
    assert Path("out.pth").read_bytes() == b"old"
    assert sorted(path.name for path in folder.iterdir()) == ["out.pth", "r.json", "w.safetensors"]
    check = json.loads(Path("r.json").read_text())["check"]
    assert check["passed"] is False
    assert sorted(check["readings"][0]["unlike"]) == sorted(names)
    assert check["backends"][0]["absolute"] > 1e-3


def test_a_file_that_only_portdet_reads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """portdet's reader goes by the content and takes it; the framework it is meant for does not."""
    only(monkeypatch, "torch")
    monkeypatch.setitem(files.WRITERS, "pth", safetensors.write)
    done = run("w.safetensors", "-o", "out.pth", "--check")
    assert isinstance(done.exception, PortdetError)
    assert "torch: torch.load does not read the file" in str(done.exception)
    assert [path.name for path in folder.iterdir()] == ["w.safetensors"]


def test_a_backbone_runs_without_a_head(folder: Path, thin: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "torch")
    backbone = {name: array for name, array in thin.items() if name.startswith("backbone.")}
    darknet.write("thin.conv.74", backbone, layers_of({name: array.shape for name, array in backbone.items()}))
    Path("thin.yaml").write_text("model: {name: yolov3, width: 0.03125, depths: [1, 1, 2, 1, 1]}\n")
    done = run("thin.conv.74", "-o", "out.npz", "--check", "--model", "thin.yaml")
    assert done.exit_code == 0, done.exception
    assert f"new file read by numpy.load: {len(backbone)} tensors, same bits\n" in done.output
    assert "modules of the backbone, as the file has no head; yolov3, width=0.03125" in done.output


def test_without_any_framework(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "")
    done = run("w.safetensors", "-o", "out.pth", "--check")
    assert isinstance(done.exception, PortdetError)
    assert "none of torch, mindspore, paddle is installed" in str(done.exception)
    assert [path.name for path in folder.iterdir()] == ["w.safetensors"]


def test_a_model_that_is_not_known(folder: Path) -> None:
    safetensors.write("x.safetensors", {"some.weight": np.ones(1, np.float32)})
    done = run("x.safetensors", "-o", "out.pth", "--check")
    assert isinstance(done.exception, PortdetError)
    assert "x.safetensors: none of its 1 names fits the model" in str(done.exception)
    assert "convert without it" in done.exception.fix
    assert not Path("out.pth").exists()


def test_the_largest_difference_and_the_first() -> None:
    want = {"a": np.array([1.0, 2.0]), "b": np.array([10.0, -20.0]), "c": np.array([4.0])}
    assert apart(want, want) == apart(dict(reversed(want.items())), want)
    found = apart({**want, "c": np.array([5.0]), "b": np.array([10.0, -18.0])}, want)
    assert (found.absolute, found.relative, found.first) == (2.0, 0.25, "b")
    assert apart({**want, "c": np.array([math.nan])}, want).absolute == math.inf
    assert apart({**want, "a": np.array([1.0])}, want).first == "a"
    assert apart({**want, "a": np.array([1.0, np.nextafter(2, 3)])}, want).first == "a", "one bit"


def test_outputs_that_overflow_prove_nothing() -> None:
    ones = np.ones(2)
    _require_finite({"backbone": ones, "predictions": np.array([np.inf])}, Path("w"))
    with pytest.raises(PortdetError, match=r"w: with these weights the output of conv1 is not finite"):
        _require_finite({"backbone": ones, "conv1": np.array([1, np.inf])}, Path("w"))


def test_every_finding_alone_fails_the_check() -> None:
    good = Proof("m", 64, "", [Reading("new file", "portdet", 3, [])], [BackendProof("torch", "2", 0.0, 0.0, "", 1e-6)])
    good.require("w")
    for bad in (
        Proof("m", 64, "", [Reading("new file", "portdet", 3, ["a"])]),
        Proof("m", 64, "", good.readings, [BackendProof("torch", "2", math.inf, math.inf, "conv1", 1e-6)]),
        Proof("m", 64, "", good.readings, [BackendProof("torch", "2", 0.0, 0.0, "conv1", 1e-6)]),  # bits: -0.0
    ):
        with pytest.raises(PortdetError, match="w: the check failed"):
            bad.require("w")
        json.dumps(bad.facts(), allow_nan=False)


def test_the_model_is_told_from_the_shapes(thin: Arrays, small: Arrays) -> None:
    found = fit(thin)
    model = load_model(found.section, imgsz=64, batch=1)
    assert {name: info.shape for name, info in model.graph.weights().items()} == {n: a.shape for n, a in thin.items()}
    with pytest.raises(PortdetError, match=r"'.*' is \(.*\) in the file, in the model it is \(.*\)"):
        fit(small)  # its channels are no width's


def test_heads_of_another_class_count_are_named_and_kept(folder: Path, thin: Arrays) -> None:
    model = "model: {name: yolov3, width: 0.03125, depths: [1, 1, 2, 1, 1], classes: %s}\n"
    Path("five.yaml").write_text(model % 5)
    done = run("w.safetensors", "-o", "out.pth", "--model", "five.yaml", "--report", "r.json")
    assert done.exit_code == 0, done.exception
    assert (
        "6 tensors of the output layers are of another class count than five.yaml's; converted as they are"
        in done.output
    )
    assert "  backblock0.conv6.weight: (24, 32, 1, 1) in the file, (30, 32, 1, 1) in the model\n" in done.output
    assert convert("out.pth", "back.npz").rows[-1].shape[0] == 24
    assert len(json.loads(Path("r.json").read_text())["notes"]) == 7
    Path("three.yaml").write_text(model % 3)
    assert "class count" not in run("w.safetensors", "-o", "out.pth", "--model", "three.yaml").output


def test_a_configuration_of_another_model_is_an_error(folder: Path) -> None:
    Path("deep.yaml").write_text("model: {name: yolov3, width: 0.03125, depths: [1, 1, 1, 1, 1], classes: 3}\n")
    done = run("w.safetensors", "-o", "out.pth", "--model", "deep.yaml")
    assert isinstance(done.exception, PortdetError)
    assert (
        "w.safetensors: 'backbone.layer3.1.conv1.norm.bias' is (4,) in the file, in the model it is not there"
        in str(done.exception)
    )
    assert not Path("out.pth").exists()
