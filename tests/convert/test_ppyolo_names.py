"""PP-YOLO's weights under PaddleDetection's and miemiedetection's names, and transfer to another number of classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.errors import PortdetError
from portdet.models import Detector, load_model
from portdet.models.ppyolo import HEAD
from portdet.session import Arrays
from portdet.spec.init import initial_weights
from portdet_convert import load_canonical, ppyolo
from portdet_convert.files import pdparams, safetensors
from portdet_convert.rules import Naming, rename, restore
from tests import bundles
from tests.convert import ppyolo_case

NANO: dict[str, Any] = {"name": "ppyolo", "variant": "nano", "classes": 3}
CASES = [
    ("nano", ppyolo.PPDET),
    ("nano", ppyolo.MIEMIE),
    ("r18vd", ppyolo.PPDET_PLAIN),
    ("r18vd", ppyolo.MIEMIE_PLAIN),
    ("v2", ppyolo.PPDET),
    ("v2", ppyolo.MIEMIE),
]


def detector(variant: str, classes: int = 3) -> Detector:
    """With narrow layers: names do not depend on them."""
    section = {"name": "ppyolo", "variant": variant, "classes": classes, "width": 8, "neck_width": 16}
    return load_model(section, imgsz=96, max_boxes=4)


def test_the_full_model_s_names(oracles: Path) -> None:
    """PaddleDetection's 392 names of PP-YOLO r50vd-DCN, each with the shape of its place here."""
    listed = bundles.listed(oracles / "ppdet_ppyolo_r50vd_dcn")
    buffers = np.load(oracles / "ppdet_ppyolo_r50vd_dcn" / "buffers.npz")
    theirs = {p["name"]: tuple(p["shape"]) for p in listed} | {name: buffers[name].shape for name in buffers.files}
    ours = {name: info.shape for name, info in load_model({"name": "ppyolo"}, imgsz=96).graph.weights().items()}
    renamed = {ppyolo.PPDET.canonical(name): shape for name, shape in theirs.items()}
    assert {found[0]: shape for found, shape in renamed.items() if found} == ours
    assert len(ours) == 392


@pytest.mark.parametrize(("variant", "naming"), [("r18vd", ppyolo.PPDET_PLAIN), ("v2", ppyolo.PPDET)])
def test_the_other_models_names(variant: str, naming: Naming) -> None:
    """As PaddleDetection's own models have them."""
    listed = ppyolo_case.names(variant)
    ours = load_model({"name": "ppyolo", "variant": variant}, imgsz=96).graph.weights()
    renamed = {naming.canonical(name): shape for name, shape in listed.items()}
    assert {found[0]: shape for found, shape in renamed.items() if found} == {n: i.shape for n, i in ours.items()}
    assert len(listed) == len(ours) == {"r18vd": 144, "v2": 532}[variant]


@pytest.mark.parametrize(("variant", "naming"), CASES, ids=lambda value: getattr(value, "name", value))
def test_there_and_back(variant: str, naming: Naming, tmp_path: Path) -> None:
    model = detector(variant)
    weights = initial_weights(model.graph, 0)
    named, _ = restore(naming, weights)
    assert len(named) == len(weights)
    back = rename(naming, named)
    assert (set(back.arrays), back.unknown) == (set(weights), [])
    safetensors.write(tmp_path / "w", named)
    loaded, report = load_canonical(tmp_path / "w", {name: array.shape for name, array in weights.items()})
    assert report.naming == naming.name
    assert all(np.array_equal(loaded[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("naming", "ours", "theirs"),
    [
        (ppyolo.PPDET, "backbone.stem2.norm.running_mean", "backbone.conv1.conv1_2.norm._mean"),
        (ppyolo.PPDET, "backbone.res2.0.short.conv.weight", "backbone.res2.res2a.short.conv.weight"),
        (ppyolo.PPDET, "backbone.res4.0.short.norm.bias", "backbone.res4.res4a.short.conv.norm.bias"),
        (ppyolo.PPDET, "backbone.res5.2.conv2.conv.conv.weight", "backbone.res5.res5c.branch2b.conv.weight"),
        (ppyolo.PPDET_PLAIN, "backbone.res5.1.conv2.conv.weight", "backbone.res5.res5b.branch2b.conv.weight"),
        (ppyolo.PPDET, "backbone.res5.1.conv2.conv_offset.bias", "backbone.res5.res5b.branch2b.conv_offset.bias"),
        (ppyolo.PPDET, "neck.block1.tip.conv.conv.weight", "neck.yolo_block.1.tip.conv.conv.weight"),
        (ppyolo.PPDET_PLAIN, "neck.block1.tip.conv.weight", "neck.yolo_block.1.tip.conv.weight"),
        (ppyolo.PPDET, "neck.block0.spp.conv.norm.weight", "neck.yolo_block.0.conv_module.spp.conv.batch_norm.weight"),
        (ppyolo.PPDET, "neck.fpn2.conv3.conv.weight", "neck.fpn.2.conv_module.1.1.conv.weight"),
        (ppyolo.PPDET, "neck.fpn0.conv3.conv.conv.weight", "neck.fpn.0.conv_module.spp.conv.conv.weight"),
        (ppyolo.PPDET, "neck.pan0.join.norm.running_var", "neck.pan.0.conv3.batch_norm._variance"),
        (ppyolo.MIEMIE, "neck.pan1.conv4.norm.running_var", "neck.pan_1.conv_module.2_0.batch_norm.running_var"),
        (ppyolo.MIEMIE, "neck.transition1.conv.weight", "neck.yolo_transition_1.conv.weight"),
        (ppyolo.MIEMIE, "neck.fpn_transition0.conv.weight", "neck.fpn_transition_0.conv.weight"),
        (ppyolo.MIEMIE, "output2.bias", "yolo_head.yolo_output_2.bias"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_names_as_published(naming: Naming, ours: str, theirs: str) -> None:
    assert naming.canonical(theirs) == (ours, "same")
    assert naming.source(ours) == (theirs, "same")


def test_another_class_count_skips_the_outputs_by_name(tmp_path: Path) -> None:
    """Six tensors, named and counted; without leave it is an error."""
    coco = initial_weights(detector("nano", 80).graph, 0)
    named: Arrays = restore(ppyolo.PPDET, coco)[0]
    pdparams.write(tmp_path / "coco.pdparams", named)
    shapes = {name: info.shape for name, info in detector("nano", 3).graph.weights().items()}
    arrays, report = load_canonical(tmp_path / "coco.pdparams", shapes, allow_misshapen=HEAD)
    assert sorted(report.misshapen) == [f"output{i}.{leaf}" for i in range(3) for leaf in ("bias", "weight")]
    assert report.misshapen["output0.weight"] == ((258, 32, 1, 1), (27, 32, 1, 1))
    assert len(arrays) == len(report.loaded) == len(shapes) - 6
    with pytest.raises(PortdetError, match="6 tensors have another shape"):
        load_canonical(tmp_path / "coco.pdparams", shapes)
