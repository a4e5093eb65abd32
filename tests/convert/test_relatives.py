"""MindYOLO's and Ultralytics' YOLOv3: refused with the reason, but for darknet's backbone under MindYOLO's names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from portdet.errors import PortdetError
from portdet_convert import convert, load_canonical, open_weights, yolov3
from portdet_convert.files import ckpt, pth, safetensors
from portdet_convert.files.source import Arrays
from portdet_convert.ultralytics import MINDYOLO, ULTRALYTICS

# Layers with weights of MindYOLO's configs/yolov3/yolov3.yaml, which are those of Ultralytics' yolov3.yaml: number,
# kind of layer, channels in (as listed by their `from`) and out, repeats.
LAYERS = [
    (0, "conv3", 3, 32, 1), (1, "conv3", 32, 64, 1), (2, "block", 64, 64, 1), (3, "conv3", 64, 128, 1),
    (4, "block", 128, 128, 2), (5, "conv3", 128, 256, 1), (6, "block", 256, 256, 8), (7, "conv3", 256, 512, 1),
    (8, "block", 512, 512, 8), (9, "conv3", 512, 1024, 1), (10, "block", 1024, 1024, 4),
    (11, "block", 1024, 1024, 1), (12, "conv1", 1024, 512, 1), (13, "conv3", 512, 1024, 1),
    (14, "conv1", 1024, 512, 1), (15, "conv3", 512, 1024, 1), (16, "conv1", 512, 256, 1),
    (19, "block", 768, 512, 1), (20, "block", 512, 512, 1), (21, "conv1", 512, 256, 1), (22, "conv3", 256, 512, 1),
    (23, "conv1", 256, 128, 1), (26, "block", 384, 256, 1), (27, "block", 256, 256, 2),
]  # fmt: skip
MINDSPORE = ("moving_mean", "moving_variance", "gamma", "beta")
TORCH = ("running_mean", "running_var", "weight", "bias")
Shapes = dict[str, tuple[int, ...]]


def units(conv: str, thin: int) -> Iterator[tuple[int, str, int, int, int]]:
    """(layer, path, channels in, out, kernel) of every convolution with batch norm, in the order of construction."""
    for number, kind, cin, cout, repeats in LAYERS:
        a, b = max(cin // thin, 3 if number == 0 else 1), cout // thin
        if kind != "block":
            yield number, str(number), a, b, int(kind[-1])
        else:
            for i in range(repeats):
                path = f"{number}.{i}" if repeats > 1 else str(number)
                yield number, f"{path}.{conv}1", a, b // 2, 1
                yield number, f"{path}.{conv}2", b // 2, b, 3


def names(prefix: str, conv: str, leaves: tuple[str, ...], thin: int = 8) -> Shapes:
    shapes: Shapes = {}
    for _, path, cin, cout, kernel in units(conv, thin):
        shapes[f"{prefix}{path}.conv.weight"] = (cout, cin, kernel, kernel)
        shapes |= {f"{prefix}{path}.bn.{leaf}": (cout,) for leaf in leaves}
    for level, cin in enumerate((256, 512, 1024)):  # strides 8, 16, 32
        shapes[f"{prefix}28.m.{level}.weight"] = (255, cin // thin, 1, 1)
        shapes[f"{prefix}28.m.{level}.bias"] = (255,)
    return shapes


def filled(shapes: Shapes) -> Arrays:
    rng = np.random.default_rng(11)
    return {name: rng.random(shape, np.float32) for name, shape in shapes.items()}


def test_the_shapes_agree_which_is_the_trap() -> None:
    """Every tensor of either has one of ours with its shape; 61.9 M values as MindYOLO's table of models says."""
    ours = {name: shape for layer in yolov3.darknet_order(outputs=255) for name, shape in layer.tensors}
    for naming, prefix, conv, leaves in (
        (MINDYOLO, "model.model.", "conv", MINDSPORE), (ULTRALYTICS, "model.", "cv", TORCH),
    ):  # fmt: skip
        theirs = names(prefix, conv, leaves, thin=1)
        found = {}
        for name, shape in theirs.items():
            canonical = naming.canonical(name)
            assert canonical is not None, name
            found[canonical[0]] = shape
        assert found == ours
        parameters = [shape for name, shape in theirs.items() if not name.endswith(leaves[:2])]
        assert round(sum(int(np.prod(shape)) for shape in parameters) / 1e6, 1) == 61.9


@pytest.mark.parametrize("prefix", ["model.model.", "ema.model.model.", ""])
def test_mindyolo_is_refused_with_the_reason(tmp_path: Path, prefix: str) -> None:
    arrays = filled(names(prefix, "conv", MINDSPORE))
    arrays |= {f"{prefix}28.{leaf}": np.zeros((3, 3, 2), np.float32) for leaf in ("anchors", "anchor_grid", "stride")}
    ckpt.write(tmp_path / "yolov3.ckpt", arrays)
    ours = {name: shape for layer in yolov3.darknet_order(outputs=255) for name, shape in layer.tensors}
    for call in (
        lambda: convert(tmp_path / "yolov3.ckpt", tmp_path / "w.pth"),
        lambda: load_canonical(tmp_path / "yolov3.ckpt", ours),
    ):
        with pytest.raises(PortdetError, match=r"is MindYOLO's model, .* shapes agree: .*SiLU.*epsilon 1e-3") as error:
            call()
        assert str(tmp_path / "yolov3.ckpt") in error.value.where
        assert "give weights of darknet, mindspore-ai/models or PaddleDetection" in error.value.fix
    assert not (tmp_path / "w.pth").exists()


@pytest.mark.parametrize("prefix", ["model.", "ema.model.", ""])
@pytest.mark.parametrize("part", ["whole", "backbone"])
def test_ultralytics_is_refused_with_the_reason(tmp_path: Path, prefix: str, part: str) -> None:
    arrays = filled(names(prefix, "cv", TORCH))
    arrays[f"{prefix}0.bn.num_batches_tracked"] = np.array(7)
    if part == "backbone":
        arrays = {n: a for n, a in arrays.items() if int(n.removeprefix(prefix).split(".")[0]) <= 10}
    pth.write(tmp_path / "yolov3.pt", arrays)
    with pytest.raises(PortdetError, match=r"is Ultralytics's model, .* shapes agree: .*SiLU.*epsilon 1e-3"):
        convert(tmp_path / "yolov3.pt", tmp_path / "w.safetensors")


def test_darknets_backbone_under_mindyolos_names(oracles: Path, tmp_path: Path) -> None:
    """MindYOLO's converter walks its parameters in fives (weight, mean, variance, gamma, beta) and takes beta, gamma,
    mean, variance and weight of each from darknet53.conv.74: here from darknet's thin one."""
    source = oracles / "darknet_yolov3_thin8/thin8.conv.74"
    values, place = np.fromfile(source, np.float32, offset=20), 0
    arrays: Arrays = {}
    for number, path, cin, cout, kernel in units("conv", 8):
        if number > 10:
            break
        unit, shape = f"model.model.{path}", (cout, cin, kernel, kernel)
        for leaf in ("bn.beta", "bn.gamma", "bn.moving_mean", "bn.moving_variance", "conv.weight"):
            size = cout if leaf[0] == "b" else int(np.prod(shape))
            arrays[f"{unit}.{leaf}"] = values[place : place + size].reshape(shape if leaf[0] == "c" else (cout,))
            place += size
    assert place == len(values)
    ckpt.write(tmp_path / "yolov3_backbone.ckpt", arrays)
    report = convert(tmp_path / "yolov3_backbone.ckpt", tmp_path / "b.conv.74")
    assert (report.naming, len(report.rows)) == ("MindYOLO", 260)
    assert report.notes[0].startswith("a backbone alone under MindYOLO's names: taken for darknet53.conv.74")
    assert (tmp_path / "b.conv.74").read_bytes()[20:] == source.read_bytes()[20:]


def test_a_name_too_many_or_too_few(tmp_path: Path, small: Arrays) -> None:
    """Each source key is used once and each target filled; the error shows the closest name of the other side."""
    del small["backblock2.conv1.norm.bias"]
    small["backblock2.conv1.norm.bais"] = np.zeros(8, np.float32)
    small["extra.weight"] = np.zeros(3, np.float32)
    safetensors.write(tmp_path / "w", small)
    with pytest.raises(PortdetError, match=r"1 of .* tensors are not in the file, 2 of the file are not used") as error:
        convert(tmp_path / "w", tmp_path / "o.npz")
    assert "backblock2.conv1.norm.bias is missing (closest: backblock2.conv1.norm.bais)" in error.value.what
    assert "extra.weight is not of this model" in error.value.what


def test_states_of_other_optimisers(tmp_path: Path) -> None:
    torch = {"state.0.momentum_buffer": np.zeros(3, np.float32), "state.1.momentum_buffer": np.zeros(3, np.float32)}
    pth.write(tmp_path / "sgd.pth", torch)
    moments = {"moments.yolo_network.feature_map.conv1.0.weight": np.zeros((2, 2, 1, 1), np.float32)}
    ckpt.write(tmp_path / "m.ckpt", moments)
    for file in ("sgd.pth", "m.ckpt"):
        with pytest.raises(PortdetError, match="holds the state of an optimiser and no weights"):
            convert(tmp_path / file, tmp_path / "o.npz")
    assert len(open_weights(tmp_path / "sgd.pth").arrays) == 2  # `weights show` still shows it
