"""Every shipped configuration loads, traces and has a recipe; those of published results have the published numbers."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.config import Config, config_root, load
from portdet.models import Detector, load_model
from portdet.models.ppyolo import STAGES
from portdet.train.groups import recipe
from portdet.train.schedule import base_rate, schedule

SHIPPED = sorted(path.stem for path in config_root().glob("*.yaml"))


@functools.cache
def shapes(variant: str, classes: int) -> dict[str, tuple[int, ...]]:
    return shapes_of(load_model({"name": "ppyolo", "variant": variant, "classes": classes}, imgsz=96))


def shapes_of(detector: Detector) -> dict[str, tuple[int, ...]]:
    return {name: tuple(info.shape) for name, info in detector.graph.weights().items()}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_configuration_makes_a_training(name: str) -> None:
    config = load(name)
    section = {"classes": len(config.data.names) or 3, **config.model}
    detector = load_model(section, imgsz=96, max_boxes=4)
    made = recipe(config, shapes_of(detector), detector.stages)
    assert all(group.names for group in made.groups)
    planned = schedule(config, 50)
    assert 0 < planned.base <= 0.1
    assert planned.warm < planned.total_steps
    assert Config.model_validate(config.model_dump(mode="json")).model_dump() == config.model_dump()
    first = (config_root() / f"{name}.yaml").read_text(encoding="utf-8").split("\n")[0]
    assert first.startswith("# ")
    if name.startswith("ppyolo"):
        detections_of_nothing(detector, config)


def detections_of_nothing(detector: Detector, config: Config) -> None:
    """The settings of validation are ones that the model knows."""
    none = np.zeros((1, 4, 4 + detector.fields.classes), np.float32)
    assert len(detector.detections(none, np.array([[100, 80]]), config)[0].scores) == 0


# As configs/ppyolo/*.yml of PaddleDetection's release 2.4 say: base rate and the global batch that it is for (devices x
# images), epochs, milestones, clip, side of evaluation, largest side of training, boxes, epochs between snapshots.
PPDET: dict[str, tuple[Any, ...]] = {
    "ppyolo_r50vd_dcn_coco": (0.01, 8 * 24, 811, [649, 730], 0, 608, 608, 50, 16),
    "ppyolo_r50vd_dcn_1x_coco": (0.01, 8 * 24, 405, [243, 324], 0, 608, 608, 50, 16),
    "ppyolov2_r50vd_dcn_coco": (0.005, 8 * 12, 365, [243], 35, 640, 768, 100, 8),
    "ppyolo_r18vd_coco": (0.004, 4 * 32, 270, [162, 216], 0, 512, 608, 50, 10),
}


@pytest.mark.parametrize("name", PPDET)
def test_recipes_of_paddledetection(name: str) -> None:
    c = load(name)
    rate, batch, epochs, milestones, clip, side, largest, boxes, every = PPDET[name]
    assert (c.optim.lr0, c.optim.lr_batch, c.data.batch) == (rate, batch, batch)
    assert base_rate(c) == rate
    assert (c.train.epochs, c.optim.lr_epochs, c.optim.lr_gamma) == (epochs, milestones, 0.1)
    assert (c.optim.schedule, c.optim.warmup, c.optim.warmup_steps) == ("exponential", "ppdet", 4000)
    assert (c.optim.momentum, c.optim.weight_decay, c.optim.nesterov) == (0.9, 5e-4, False)
    assert (c.optim.clip_norm, c.optim.clip, c.optim.freeze_at) == (clip, "global", -1)
    assert (c.ema.kind, c.ema.decay) == ("threshold", 0.9998)
    assert (c.data.imgsz, c.data.sizes) == (side, list(range(320, largest + 1, 32)))
    assert (c.data.resize, c.augment.kind) == ("stretch_cubic", "ppyolo")
    assert c.augment.mixup_epochs >= epochs
    assert (c.data.max_boxes, c.eval.every, c.eval.start) == (boxes, every, every)
    assert (c.eval.nms_kind, c.eval.conf, c.eval.max_det) == ("matrix", 0.01, 100)


def test_paddledetections_yolov3() -> None:
    """configs/yolov3/_base_/{yolov3_darknet53,optimizer_270e,yolov3_reader}.yml; MultiClassNMS has normalized=True."""
    c = load("yolov3_ppdet_coco")
    assert (c.model, base_rate(c), c.data.batch) == ({"name": "yolov3", "profile": "ppdet"}, 0.001, 8 * 8)
    assert (c.train.epochs, c.optim.lr_epochs, c.optim.lr_gamma) == (270, [216, 243], 0.1)
    assert (c.optim.schedule, c.optim.warmup, c.optim.warmup_steps) == ("exponential", "ppdet", 4000)
    assert (c.optim.momentum, c.optim.weight_decay, c.optim.nesterov, c.ema.kind) == (0.9, 5e-4, False, "none")
    assert (c.data.imgsz, c.data.sizes, c.data.max_boxes) == (608, list(range(320, 609, 32)), 50)
    assert (c.data.resize, c.augment.kind, c.augment.mixup_epochs) == ("stretch_cubic", "ppyolo", 250)
    assert (c.eval.nms_kind, c.eval.conf, c.eval.objectness, c.eval.nms) == ("multiclass", 0.01, 0.005, 0.45)
    assert (c.eval.top_k, c.eval.max_det, c.eval.pixel_offset) == (1000, 100, 0)
    fields = load_model(c.model, imgsz=96).fields
    assert (fields.label_smooth, fields.ignore_threshold, fields.size_loss, fields.mixed) == (0, 0.7, "absolute", True)


@pytest.mark.parametrize(("name", "side"), [("ppyolo_voc2012", 608), ("ppyolov2_voc2012", 640)])
def test_transfer_to_voc2012(name: str, side: int) -> None:
    """PaddleDetection's log, and miemiedetection's exps/ppyolo/ppyolo{,v2}_r50vd_voc2012.py."""
    c = load(name)
    assert f"{base_rate(c):.6g}" == "0.000416667"
    assert (c.train.epochs, c.optim.lr_epochs, c.data.batch) == (16, [12, 14], 8)
    assert (c.optim.warmup, c.optim.warmup_steps) == ("ppdet", 5717 // 8)
    assert (c.data.imgsz, len(c.data.names)) == (side, 20)
    validated = [e for e in range(1, 17) if e >= c.eval.start and (e - c.eval.start) % c.eval.every == 0]
    assert validated == [2, 4, 6, 8, 10, 12, 14, 16]
    v2 = name == "ppyolov2_voc2012"
    assert (c.optim.freeze_at, c.optim.clip_norm, c.optim.clip) == ((3, 35, "group") if v2 else (-1, 0, "global"))


def test_the_voc2012_runs_are_those_of_the_published_curves() -> None:
    assert (config_root() / "published" / "ppyolo_voc2012.yaml").is_file()
    assert (config_root() / "published" / "ppyolov2_voc2012.yaml").is_file()


def test_bccd_with_and_without_the_average() -> None:
    root = Path(load("ppyolo_bccd").data.root)
    assert root == Path(load("yolov3_bccd").data.root)
    with_ema, without = load("ppyolo_bccd"), load("ppyolo_bccd", ["ema.kind=none"])
    assert (with_ema.ema.kind, without.ema.kind) == ("threshold", "none")
    assert with_ema.model_dump(exclude={"ema"}) == without.model_dump(exclude={"ema"})


# ---------------------------------------------------------------------- what decays, what is frozen
@pytest.mark.parametrize(
    ("variant", "tensors", "offsets", "levels"), [("r50vd_dcn", 392, 3, 3), ("r18vd", 144, 0, 2), ("v2", 532, 3, 3)]
)
def test_what_decays(variant: str, tensors: int, offsets: int, levels: int) -> None:
    """tensors: as miemiedetection counts them. Of each norm's unit there are five: a kernel, two weights of the norm
    and its statistics; offsets and outputs have a kernel and a bias."""
    found = shapes(variant, 20)
    assert len(found) == tensors
    units = (tensors - 2 * offsets - 2 * levels) // 5
    decayed, plain = (set(group.names) for group in recipe(load("ppyolo_r50vd_dcn_coco"), found).groups)
    assert (len(decayed), len(plain)) == (units + 2 * offsets + levels, 2 * units + levels)
    assert {name for name in plain if ".norm." not in name} == {f"output{level}.bias" for level in range(levels)}
    assert {name for name in decayed if name.endswith(".bias")} == {
        f"backbone.res5.{block}.conv2.conv_offset.bias" for block in range(offsets)
    }


# Parameters of torchvision's ResNet-50, layer1 to layer3; of layer4 with three offset convolutions, 512 -> 27 channels;
# and of the stem of ResNet-vd, three 3x3 convolutions with norms.
STEM = 9 * (3 * 32 + 32 * 32 + 32 * 64) + 2 * (32 + 32 + 64)
LAYERS = (215_808, 1_219_584, 7_098_368, 14_964_736 + 3 * 27 * (512 * 9 + 1))


@pytest.mark.parametrize("freeze_at", [-1, 0, 1, 2, 3])
def test_what_freeze_at_freezes(freeze_at: int) -> None:
    """In miemiedetection's log of its run with 3, of 46,722,459 parameters 22,821,866 are trained."""
    found = shapes("r50vd_dcn", 20)
    config = load("ppyolo_voc2012", [f"freeze_at={freeze_at}"])
    groups = recipe(config, found, STAGES).groups
    trained = sum(math.prod(found[name]) for group in groups for name in group.names)
    frozen = STEM + sum(LAYERS[: freeze_at + 1]) if freeze_at >= 0 else 0
    assert trained == 46_722_459 - frozen
    assert trained == 22_821_866 or freeze_at < 3
