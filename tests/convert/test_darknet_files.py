"""darknet's own files and the converter of mindspore-ai/models: names, shapes, order and bytes that are not ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from portdet.errors import PortdetError
from portdet_convert import convert, open_weights, sniff, yolov3
from portdet_convert.files import HEADER, WRITERS, ckpt, darknet, remarks
from portdet_convert.files.source import Arrays, Source
from portdet_convert.rules import Naming, Renamed, rename
from tests.bundles import listed

THIN8 = (4, 8, 16, 32, 64, 128)


@pytest.mark.parametrize(
    ("file", "size", "seen", "tensors"),
    [("thin8.conv.74", 20, 0, 260), ("thin8.conv.74.oldheader", 16, 1234, 260), ("yolov3_thin8.weights", 20, 480, 366)],
)
def test_darknet_to_every_format_and_back(
    oracles: Path, tmp_path: Path, file: str, size: int, seen: int, tensors: int
) -> None:
    source = oracles / "darknet_yolov3_thin8" / file
    assert sniff(source) == "darknet"
    header, start = darknet.header(Source(source))
    assert (start, header.seen) == (size, seen)
    for form in ("ckpt", "pth", "pdparams", "safetensors", "npz"):
        there = convert(source, tmp_path / f"w.{form}", channels=THIN8)
        assert len(there.rows) == tensors
        convert(tmp_path / f"w.{form}", tmp_path / "back.weights")
        assert (tmp_path / "back.weights").read_bytes() == source.read_bytes(), form


@pytest.mark.parametrize("form", ["ckpt", "pth", "pdparams", "safetensors", "npz"])
@pytest.mark.parametrize("text", ["0 2 5", "0 2 5 x", "0 2 5 -1", "0 1 0 4294967296", "1001 0 0 0", "0 2 2147483648 0"])
def test_a_remark_that_is_no_header(tmp_path: Path, small: Arrays, form: str, text: str) -> None:
    WRITERS[form](tmp_path / "w", small, {HEADER: text})
    convert(tmp_path / "w", tmp_path / "w.npz")
    with pytest.raises(PortdetError, match="its remark on darknet's header"):
        convert(tmp_path / "w", tmp_path / "w.weights")
    assert not (tmp_path / "w.weights").exists()


@pytest.mark.parametrize(
    "damage", [b"", b"portdet", b"portdet:", b"portdet:[1]", b'portdet:{"a', b"portdet:" + b"[" * 9000]
)
def test_what_is_no_remark_of_ours(damage: bytes) -> None:
    assert remarks.unpack(damage) == {}


def test_same_arrays_as_the_converter_of_mindspore_models(oracles: Path, tmp_path: Path) -> None:
    convert(oracles / "darknet_yolov3_thin8/thin8.conv.74", tmp_path / "ours.safetensors", channels=THIN8)
    convert(oracles / "msmodels_yolov3/thin8_backbone.ckpt", tmp_path / "theirs.safetensors")
    ours, theirs = (open_weights(tmp_path / f"{who}.safetensors").arrays for who in ("ours", "theirs"))
    assert list(ours) == list(theirs)
    assert len(ours) == 260
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def _msmodels_names(oracles: Path, prefix: str) -> Renamed:
    """The peer's names, each on an array that holds its number."""
    table = json.loads((oracles / "msmodels_yolov3/converted_darknet53_conv74.json").read_text())
    return rename(
        yolov3.MSMODELS, {prefix + t["name"]: np.broadcast_to(np.float32(i), t["shape"]) for i, t in enumerate(table)}
    )


@pytest.mark.parametrize("prefix", ["", "yolo_network."])
def test_names_and_shapes_of_the_full_file_are_the_peers(oracles: Path, prefix: str) -> None:
    found = _msmodels_names(oracles, prefix)
    ours = {name: shape for layer in yolov3.darknet_order() for name, shape in layer.tensors}
    assert not found.unknown
    assert {name: array.shape for name, array in found.arrays.items()} == ours
    # The peer lists weight, mean, variance, gamma, beta of each convolution, in darknet's order of convolutions.
    order = [int(found.arrays[f"{layer.name}.conv.weight"].flat[0]) for layer in yolov3.darknet_order()]
    assert order == list(range(0, 260, 5))


def test_order_and_shapes_are_those_of_the_cfg(oracles: Path) -> None:
    """The `.cfg` that darknet itself ran is the witness."""
    sizes = list(_cfg_convolutions(oracles / "darknet_yolov3_thin8/yolov3_thin8.cfg"))
    ours = yolov3.darknet_order(channels=THIN8, outputs=255)
    assert [(layer.cin, layer.cout, layer.kernel, layer.norm) for layer in ours] == sizes
    total = sum(layer.count for layer in ours)
    assert total == darknet.count(oracles / "darknet_yolov3_thin8/yolov3_thin8.weights")


def _cfg_convolutions(path: Path) -> Iterator[tuple[int, int, int, bool]]:
    outputs: list[int] = []
    for section in path.read_text().split("[")[1:]:
        kind, _, body = section.partition("]")
        lines = [line.partition("#")[0].partition("=") for line in body.splitlines()]
        values = {key.strip(): value.strip() for key, _, value in lines if value}
        if kind == "convolutional":
            cin = outputs[-1] if outputs else 3
            yield cin, int(values["filters"]), int(values["size"]), "batch_normalize" in values
            outputs.append(int(values["filters"]))
        elif kind == "route":
            layers = [int(n) for n in values["layers"].split(",")]
            outputs.append(sum(outputs[n] for n in layers))
        elif kind != "net":
            outputs.append(outputs[-1])


def test_a_training_checkpoint_of_mindspore_models(oracles: Path, tmp_path: Path) -> None:
    """Its weights table, with the optimiser state that its checkpoints hold, converts; the state is counted."""
    table = listed(oracles / "msmodels_yolov3")
    arrays = {  # an eighth of the widths
        t["name"]: np.full([n // 8 if n % 8 == 0 else n for n in t["shape"]], i, np.float32)
        for i, t in enumerate(table)
    }
    with np.load(oracles / "msmodels_yolov3/buffers.npz") as buffers:
        arrays |= {name: np.abs(buffers[name][::8]) for name in buffers.files}
    moments = {f"moments.{t['name']}": np.zeros(3, np.float32) for t in table}
    state = {"learning_rate": np.array(0.1), "momentum": np.array(0.9), "global_step": np.array([7], np.int32)}
    ckpt.write(tmp_path / "epoch.ckpt", {**arrays, **moments, **state})
    report = convert(tmp_path / "epoch.ckpt", tmp_path / "out.pth")
    assert report.naming == "mindspore-ai/models"
    assert len(report.rows) == 366
    assert len(report.skipped) == len(moments) + 3
    assert set(report.skipped.values()) == {"optimiser state", "state of the training"}


def test_names_of_ppdet() -> None:
    """SHA-256 of 'name shape' lines, sorted, of the state_dict that ppdet's own DarkNet, YOLOv3FPN and YOLOv3Head
    (commit 666f597f, 80 classes) gave in Paddle 3.3.1."""
    shapes = {name: shape for layer in yolov3.darknet_order(outputs=255) for name, shape in layer.tensors}
    lines = []
    for name, shape in shapes.items():
        source = yolov3.PPDET.source(name)
        assert source is not None
        assert yolov3.PPDET.canonical(source[0]) == (name, "same")
        lines.append(f"{source[0]} {list(shape)}")
    assert hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16] == "85fa1d7d8f719cf7"


@pytest.mark.parametrize("naming", yolov3.NAMINGS, ids=lambda naming: naming.name)
def test_every_naming_is_a_bijection(naming: Naming) -> None:
    names = [name for layer in yolov3.darknet_order(outputs=255) for name, _ in layer.tensors]
    sources = [found[0] for name in names if (found := naming.source(name))]
    assert len(set(sources)) == len(names) == 366
    back = [naming.canonical(source) for source in sources]
    assert back == [(name, "same") for name in names]


def test_the_class_count_follows_from_the_size() -> None:
    for classes in (1, 3, 20, 80):
        order = yolov3.darknet_order(outputs=3 * (5 + classes))
        assert yolov3.layers_for(sum(layer.count for layer in order)) == order
    values = sum(layer.count for layer in yolov3.darknet_order(outputs=255))
    assert 20 + 4 * values == 248_007_048  # size of the published yolov3.weights
    with pytest.raises(PortdetError, match="40620641 float32 values are neither the backbone"):
        yolov3.layers_for(40_620_641)
