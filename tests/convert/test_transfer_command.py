"""`portdet train --pretrained`: files of another class count, another run, a backbone alone; only heads start anew."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from portdet.cli.__main__ import run
from portdet.models.ppyolo import Config, build
from portdet.session import Arrays
from portdet.train.checkpoint import Progress, save_state, save_weights
from portdet_convert import convert, ppyolo
from portdet_convert.files import pdparams, safetensors
from portdet_convert.rules import Naming, restore

# The learning rate is too small to change a bit of a float32: what was loaded is there after the step.
TINY = [
    "ppyolo_scenes", "train_count=4", "val_count=2", "batch=2", "scene_size=96", "imgsz=96", "workers=0", "threads=1",
    "epochs=1", "max_steps=1", "optim.lr0=1e-30", "optim.weight_decay=0",
]  # fmt: skip
HEADS = [f"output{level}.{leaf}" for level in range(3) for leaf in ("weight", "bias")]


def weights(classes: int = 80, **fields: Any) -> Arrays:
    """Of PP-YOLO nano, as from elsewhere."""
    rng = np.random.default_rng(4)
    spec = build(Config.model_validate({"variant": "nano", "classes": classes, **fields}))
    return {name: draw(rng, name, param.shape) for name, param in spec.items()}


def draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Any:
    if len(shape) == 4:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    return (rng.random(shape) * 0.1 + name.endswith((".norm.weight", "running_var"))).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trained(file: str) -> Arrays:
    """The weights after one step that starts from a file."""
    assert run(["train", *TINY, "--folder", "run", "--pretrained", file]) == 0
    state = load_file("run/weights/last.safetensors")
    return {name.removeprefix("weights/"): array for name, array in state.items() if name.startswith("weights/")}


def same(found: Arrays, given: Arrays) -> set[str]:
    """Names that came over unchanged. A training step moves batch norm's statistics, which are left out."""
    names = {name for name in found if "running_" not in name}
    return {name for name in names if name in given and found[name].tobytes() == given[name].tobytes()}


def written(kind: str, arrays: Arrays) -> str:
    """A file of another program or run."""
    if kind == "ppdet":
        pdparams.write("coco.pdparams", restore(ppyolo.PPDET, arrays)[0])
        return "coco.pdparams"
    if kind == "best of a run":
        save_weights(Path("best.safetensors"), arrays, {"epoch": 3, "weights": "ema"})
        return "best.safetensors"
    state = {f"{part}/{name}": array for part in ("weights", "momentum", "ema") for name, array in arrays.items()}
    save_state(Path("last.safetensors"), state, Progress(epoch=3))
    return "last.safetensors"


@pytest.mark.parametrize("kind", ["ppdet", "best of a run", "last of a run"])
def test_another_class_count(folder: Path, capfd: pytest.CaptureFixture[str], kind: str) -> None:
    given = weights(80)
    found = trained(written(kind, given))
    said = capfd.readouterr().out
    assert "264 loaded, 0 missing, 0 unexpected, 6 misshapen" in said
    for name in HEADS:
        assert f"skipped {name}: {given[name].shape} in the file, {found[name].shape} in the model; starts anew" in said
    assert said.count("starts anew") == 6
    assert same(found, given) == {name for name in found if "running_" not in name} - set(HEADS)
    if kind == "last of a run":
        assert "skipped 270, optimiser state: momentum/" in said
        assert "skipped 270, average of the weights, not the weights: ema/" in said


def test_the_same_class_count_takes_the_heads_too(folder: Path) -> None:
    given = weights(3)
    found = trained(written("best of a run", given))
    assert same(found, given) == {name for name in found if "running_" not in name}


@pytest.mark.parametrize("form", ["pdparams", "ckpt"])
def test_a_backbone_alone(folder: Path, capfd: pytest.CaptureFixture[str], form: str) -> None:
    """PaddleDetection's ResNet50_vd of ImageNet: no deformable convolution, no `backbone.`, a classifier at the end.

    As it is, and converted.
    """
    given = {name: array for name, array in weights(deformable=False).items() if name.startswith("backbone.")}
    named = {name.removeprefix("backbone."): array for name, array in restore(ppyolo.PPDET_PLAIN, given)[0].items()}
    classifier = {"fc.weight": np.ones((512, 9), np.float32), "fc.bias": np.ones(9, np.float32)}
    pdparams.write("ResNet50_vd.pdparams", {**named, **classifier})
    if form != "pdparams":
        convert("ResNet50_vd.pdparams", f"ResNet50_vd.{form}")
    found = trained(f"ResNet50_vd.{form}")
    said = capfd.readouterr().out
    assert f"{len(given)} loaded, {270 - len(given)} missing, 0 unexpected, 0 misshapen" in said
    if form == "pdparams":
        assert "skipped 2, output of a classifier: fc.weight, fc.bias" in said
    ours = {name.replace("conv2.conv.", "conv2.conv.conv.") if "res5" in name else name: a for name, a in given.items()}
    assert same(found, ours) == {name for name in ours if "running_" not in name}
    offsets = [array for name, array in found.items() if ".conv_offset." in name]
    assert len(offsets) == 4
    assert max(np.abs(array).max() for array in offsets) < 1e-20  # zero, and the step


def less(arrays: Arrays, *names: str) -> Arrays:
    return {name: array for name, array in arrays.items() if not name.startswith(names)}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (weights(80, neck_width=32), r"\d+ tensors have another shape; the first is neck\.block0\.conv0"),
        (less(weights(3), "output1.bias"), r"1 of 270 tensors are not in the file, 0 of .*output1\.bias is missing"),
        (less(weights(3), "backbone.res5.0.conv2.conv_offset.bias"), "1 of 270 tensors are not in the file"),
        (
            less(weights(3), "neck.", "output", "backbone.res5.0.conv2.conv_offset.bias"),
            "112 of 270 tensors are not in",
        ),
        (less(weights(3), "neck."), r"\d+ of 270 tensors are not in the file, 0 of"),
    ],
    ids=["another neck", "half a head", "an offset", "a backbone without an offset", "no neck"],
)
@pytest.mark.parametrize("naming", [None, ppyolo.PPDET], ids=["portdet", "ppdet"])
def test_only_heads_may_start_anew(
    folder: Path, capfd: pytest.CaptureFixture[str], arrays: Arrays, said: str, naming: Naming | None
) -> None:
    safetensors.write("w.safetensors", restore(naming, arrays)[0] if naming else arrays)
    assert run(["train", *TINY, "--folder", "run", "--pretrained", "w.safetensors"]) == 1
    assert re.search(said, capfd.readouterr().err)
    assert not Path("run").exists()
