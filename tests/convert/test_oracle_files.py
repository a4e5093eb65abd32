"""Files that darknet, mindspore-ai/models and PaddleDetection wrote, through every format, against what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.errors import PortdetError
from portdet.models import Detector, load_model
from portdet.reference import run
from portdet.spec.init import initial_weights
from portdet_convert import convert, load_canonical, open_weights
from portdet_convert.files.source import Array, Arrays
from tests.bundles import first, listed, near, sha

FORMATS = ("ckpt", "npz", "pdparams", "pth", "safetensors", "darknet")


@pytest.fixture(scope="module")
def thin() -> Detector:
    return load_model({"name": "yolov3", "profile": "darknet", "width": 0.125}, imgsz=128, max_boxes=3)


def layers(seen: dict[str, Any]) -> dict[int, Array]:
    """Outputs of the reference by the number of darknet's layer; [shortcut] ends a block, heads are raw."""
    found = {0: seen["backbone.conv0"], 1: seen["backbone.conv1"], 4: seen["backbone.layer1"]}
    found |= {number: seen["backbone"][level] for level, number in enumerate((36, 61, 74))}
    return found | {number: seen[f"backblock{b}"][1] for b, number in enumerate((81, 93, 105))}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("file", "tensors"), [("yolov3_thin8.weights", 366), ("thin8.conv.74", 260), ("thin8.conv.74.oldheader", 260)]
)
def test_darknets_own_output_layer_by_layer(
    thin: Detector, oracles: Path, tmp_path: Path, file: str, tensors: int, form: str
) -> None:
    """Its files with its .cfg, headers of 20 and 16 bytes, in a file of each format: what it computed itself.

    The reference computes in float64, darknet in float32: 1e-5 of a layer's largest value. The backbones are cut from
    the same training; the head behind them gets fresh weights and its layers are left out.
    """
    folder = oracles / "darknet_yolov3_thin8"
    convert(folder / file, tmp_path / f"w.{form}", to=form, cfg=folder / "yolov3_thin8.cfg")
    shapes = {name: info.shape for name, info in thin.graph.weights().items()}
    weights, report = load_canonical(tmp_path / f"w.{form}", shapes)
    assert (len(report.loaded), len(report.missing)) == (tensors, 366 - tensors)
    want, seen = np.load(folder / "eval.npz"), dict[str, Any]()
    run(
        thin.graph, "predict", False, {**initial_weights(thin.graph, 0), **weights}, {"images": want["input"][:1]},
        record=seen.__setitem__,
    )  # fmt: skip
    found = {number: got for number, got in layers(seen).items() if tensors == 366 or number <= 74}
    assert len(found) == (9 if tensors == 366 else 6)
    for number, got in found.items():
        near(got, first(got, want[f"layer{number}"]), 1e-5)


@pytest.mark.parametrize("form", FORMATS)
def test_the_checkpoint_of_mindspore_models(oracles: Path, tmp_path: Path, form: str) -> None:
    """thin8_backbone.ckpt is its converter's result: through every format it is darknet's file again, bit for bit."""
    source = oracles / "msmodels_yolov3/thin8_backbone.ckpt"
    report = convert(source, tmp_path / f"b.{form}", to=form)
    assert (report.naming, len(report.rows), report.skipped) == ("mindspore-ai/models", 260, {})
    convert(tmp_path / f"b.{form}", tmp_path / "b.conv.74", depths=(1, 2, 8, 8, 4), channels=(4, 8, 16, 32, 64, 128))
    payload = (oracles / "darknet_yolov3_thin8/thin8.conv.74").read_bytes()[20:]
    assert (tmp_path / "b.conv.74").read_bytes()[20:] == payload


def test_the_weights_of_mindspore_models(oracles: Path, tmp_path: Path, mindspore_weights: Arrays) -> None:
    """All 366 tensors of the bundle under its own names, which carry the training wrapper, of full size."""
    spec = listed(oracles / "msmodels_yolov3")
    leaves = {"norm.weight": "1.gamma", "norm.bias": "1.beta", "norm.running_mean": "1.moving_mean",
              "norm.running_var": "1.moving_variance", "conv.weight": "0.weight"}  # fmt: skip

    def theirs(name: str) -> str:
        leaf = next((leaf for leaf in leaves if name.endswith(f".{leaf}")), "")
        return "yolo_network.feature_map." + (name.removesuffix(leaf) + leaves[leaf] if leaf else name)

    named = {theirs(name): array for name, array in mindspore_weights.items()}
    assert {entry["name"] for entry in spec} <= set(named)
    np.savez(tmp_path / "theirs.npz", **named)
    report = convert(tmp_path / "theirs.npz", tmp_path / "w.ckpt")
    assert (report.naming, len(report.rows)) == ("mindspore-ai/models", 366)
    made, origin = open_weights(tmp_path / "w.ckpt").arrays, {row.source: row.target for row in report.rows}
    assert {entry["name"]: sha(made[origin[entry["name"]]]) for entry in spec} == {
        entry["name"]: entry["sha"] for entry in spec
    }


def test_what_the_converter_of_mindspore_models_makes_of_the_full_file(oracles: Path) -> None:
    """Its names and shapes of the real darknet53.conv.74, all taken, to the last of the published file's values."""
    table = json.loads((oracles / "msmodels_yolov3/converted_darknet53_conv74.json").read_text())
    sizes = [int(np.prod(entry["shape"])) for entry in table]
    assert 20 + 4 * sum(sizes) == 162_482_580
    assert all(len(entry["sha"]) == 16 for entry in table)


@pytest.fixture(scope="module")
def tiny(oracles: Path) -> Path:
    return oracles / "ppdet_ppyolo_tiny_pdparams"


@pytest.mark.parametrize("form", FORMATS[:-1])
def test_a_pdparams_of_a_model_that_is_not_known(tiny: Path, tmp_path: Path, form: str) -> None:
    """PP-YOLO tiny: the 358 names, shapes and bits of PaddleDetection's file arrive in every format, there and back."""
    source = tiny / "ppyolo_tiny_random_init.pdparams"
    report = convert(source, tmp_path / f"w.{form}")
    assert report.naming == "no known"
    assert report.notes[0].startswith("no known naming: names kept; only 31 of its 358 names fits the model")
    assert all(row.source == row.target for row in report.rows)
    convert(tmp_path / f"w.{form}", tmp_path / "back.pdparams")
    table = {
        entry["name"]: (tuple(entry["shape"]), entry["sha"])
        for entry in json.loads((tiny / "tensors.json").read_text())
    }
    for file in (f"w.{form}", "back.pdparams"):
        arrays = open_weights(tmp_path / file).arrays
        assert {name: (array.shape, sha(array)) for name, array in arrays.items()} == table


def test_a_model_that_is_not_known_has_no_order(tiny: Path, tmp_path: Path) -> None:
    source = tiny / "ppyolo_tiny_random_init.pdparams"
    with pytest.raises(PortdetError, match="only 31 of its 358 names fits the model"):
        convert(source, tmp_path / "w.weights")
    with pytest.raises(PortdetError, match="only 31 of its 358 names fits the model"):  # a model was named
        convert(source, tmp_path / "w.npz", channels=(32, 64, 128, 256, 512, 1024))
    assert not list(tmp_path.iterdir())
