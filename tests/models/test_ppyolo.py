"""PP-YOLO's variants: sizes, cost, start, DropBlock, coordinates, and wrong settings."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from portdet.backends import load_backend, source_text
from portdet.config import Config as RunConfig
from portdet.errors import PortdetError
from portdet.ir.summary import summary
from portdet.models import Detector, load_model
from portdet.models.necks.blocks import CoordRange, add_coordinates, drop_block
from portdet.models.ppyolo import detections
from portdet.reference import run
from portdet.session import Arrays
from portdet.spec.init import initial_weights
from portdet.train.groups import recipe

NANO: dict[str, Any] = {"name": "ppyolo", "variant": "nano", "classes": 3}


@pytest.fixture(scope="module")
def nano() -> Detector:
    return load_model(NANO, imgsz=96, max_boxes=4)


@pytest.mark.parametrize(
    ("variant", "side", "millions", "tensors", "gflops"),
    [("r50vd_dcn", 608, 46.722459, 392, 101), ("r18vd", 416, 13.0, 144, 15.2), ("v2", 640, 54.3, 532, 120)],
)
def test_parameters_tensors_and_flops(variant: str, side: int, millions: float, tensors: int, gflops: float) -> None:
    """As counted in miemiedetection's models with 20 classes; the first exactly, by its log of the VOC2012 run."""
    total = summary(load_model({"name": "ppyolo", "variant": variant, "classes": 20}, imgsz=side, batch=1).graph)[0]
    assert total.tensors == tensors
    assert total.parameters / 1e6 == pytest.approx(millions, abs=1e-9 if variant == "r50vd_dcn" else 0.05)
    assert total.flops / 1e9 == pytest.approx(gflops, rel=5e-3)


def test_with_the_backbone_frozen_the_rest_is_trained() -> None:
    """freeze_at=3: stem and res2 to res5; 22,821,866 trainable weights in miemiedetection's log."""
    detector = load_model({"name": "ppyolo", "classes": 20}, imgsz=96)
    shapes = {name: info.shape for name, info in detector.graph.weights().items()}
    settings = RunConfig.model_validate({"optim": {"freeze": ["backbone"]}})
    trained = [name for group in recipe(settings, shapes).groups for name in group.names]
    assert sum(math.prod(shapes[name]) for name in trained) == 22_821_866


def test_nano_has_every_op_of_the_full_model(nano: Detector) -> None:
    def ops_of(detector: Detector) -> set[str]:
        methods = [f for module in detector.graph.walk() for f in module.methods.values()]
        found, queue = set(), list(methods)
        while queue:
            function = queue.pop()
            found |= {node.op for node in function.nodes}
            queue += [node.call.function for node in function.nodes if node.call is not None]
        return found

    assert ops_of(nano) == ops_of(load_model({"name": "ppyolo"}, imgsz=96))
    assert summary(nano.graph)[0].parameters < 2e6


def test_weights_start_as_paddle_starts_them(nano: Detector) -> None:
    """Normal(0, sqrt(2 / fan in)); what finds the offsets, and all biases, at zero."""
    weights = initial_weights(nano.graph, 0)
    kernel = weights["neck.block0.conv1.conv.weight"]
    assert kernel.std() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
    assert abs(kernel).max() > 3.5 * kernel.std()
    assert weights["backbone.res5.0.conv2.conv.conv.weight"].std() == pytest.approx(math.sqrt(2 / (128 * 9)), rel=0.02)
    assert not weights["backbone.res5.0.conv2.conv_offset.weight"].any()
    assert not weights["backbone.res5.0.conv2.conv_offset.bias"].any()
    assert not weights["output0.bias"].any()


def test_coordinates_in_both_ranges() -> None:
    x = np.zeros((2, 1, 3, 5))
    ranges: list[tuple[CoordRange, float]] = [("legacy", 1.0), ("ppdet22", -0.5)]
    for name, end in ranges:
        got = add_coordinates(x, name)
        assert got.shape == (2, 3, 3, 5)
        np.testing.assert_allclose(got[1, 1, 2], np.linspace(-1, end, 5))
        np.testing.assert_allclose(got[0, 2, :, 4], np.linspace(-1, end, 3))


def test_drop_block_by_hand() -> None:
    """One centre in a corner, one in the middle: 4 and 9 of 2 x 3 x 36 values are lost, the rest grows."""
    noise = np.full((2, 3, 6, 6), 0.9)
    rate = 0.1 / 9 * 36 / 16
    noise[0, 0, 0, 0] = noise[1, 2, 3, 3] = rate * 0.999
    noise[0, 1, 2, 2] = rate * 1.001
    x = np.ones((2, 3, 6, 6))
    y = drop_block(x, noise.reshape(2, -1, 3, 3), 0.9)
    assert (y[0, 0, :2, :2] == 0).all()
    assert (y[1, 2, 2:5, 2:5] == 0).all()
    kept = y[y > 0]
    assert len(kept) == y.size - 13
    np.testing.assert_allclose(kept, y.size / (y.size - 13))


def test_drop_block_needs_noise_in_training_alone(nano: Detector) -> None:
    """The noise reaches the loss; other noise, other loss. Without DropBlock the model takes none."""
    assert nano.noise is not None
    assert nano.noise(96) == (128 + 64 * 4 + 32 * 16, 3, 3)
    weights = initial_weights(nano.graph, 0)
    random = np.random.default_rng(0)
    boxes = np.array([[[10, 20, 50, 60], [5, 5, 90, 80], [0, 0, 0, 0], [0, 0, 0, 0]]] * 2, np.float32)
    valid = boxes[..., 2] > 0
    inputs: Arrays = {
        "images": random.standard_normal((2, 3, 96, 96)), "boxes": boxes, "labels": valid.astype(np.int32),
        "valid": valid, "scores": valid.astype(np.float64),
    }  # fmt: skip
    losses = []
    for noise in (np.full((2, 896, 3, 3), 0.99), random.random((2, 896, 3, 3))):
        found, _ = run(nano.graph, "loss", True, weights, {**inputs, "noise": noise})
        losses.append(float(found["loss"]))
    plain = load_model({**NANO, "drop_block": False}, imgsz=96, max_boxes=4)
    assert plain.noise is None
    without, _ = run(plain.graph, "loss", True, weights, inputs)
    assert losses[0] == pytest.approx(float(without["loss"]), rel=1e-12)
    assert abs(losses[1] - losses[0]) > 1e-3


@pytest.mark.parametrize("backend", ["torch", "mindspore", "paddle"])
def test_source_says_each_block_once(backend: str) -> None:
    """17 classes for all modules of the full model, and Paddle's batch norm; the narrow one has the same classes."""
    classes = []
    for section in ({"name": "ppyolo"}, {**NANO, "depths": (3, 4, 6, 3)}):
        source = source_text(load_model(section, imgsz=96), load_backend(backend).target)
        assert source.count("\n") < 550
        classes.append([line.split("(")[0] for line in source.splitlines() if line.startswith("class ")])
    assert classes[0] == classes[1]
    assert len(classes[0]) == len(set(classes[0])) == (18 if backend == "paddle" else 17)


@pytest.mark.parametrize(
    ("section", "what"),
    [
        ({"variant": "r34"}, "model.variant"),
        ({"neck": "light"}, "needs 6 anchors, 9 are given"),
        ({"coord_range": "ppdet21"}, "model.coord_range"),
    ],
)
def test_wrong_settings_are_named(section: dict[str, Any], what: str) -> None:
    with pytest.raises(PortdetError, match=what):
        load_model({"name": "ppyolo", **section}, imgsz=96)


def test_images_too_small_for_drop_block() -> None:
    with pytest.raises(PortdetError, match="64 px are too small"):
        load_model(NANO, imgsz=64)
    load_model({**NANO, "drop_block": False}, imgsz=64)


def predicted() -> np.ndarray[Any, Any]:
    """Two boxes of class 1 that overlap, one of class 0, one below all thresholds: shares of the image."""
    rows = np.zeros((1, 4, 4 + 2), np.float32)
    rows[0, :, :4] = [[0.1, 0.1, 0.5, 0.5], [0.12, 0.1, 0.5, 0.5], [0.6, 0.6, 1.2, 0.9], [0.2, 0.2, 0.3, 0.3]]
    rows[0, :, 4:] = [[0, 0.9], [0, 0.6], [0.5, 0], [0.004, 0]]
    return rows


def test_boxes_by_matrix_and_greedy_suppression() -> None:
    config = RunConfig.model_validate({"data": {"imgsz": 608}, "eval": {"nms_kind": "matrix", "conf": 0.01}})
    sizes = np.array([[200, 118]])
    one = detections(predicted(), sizes, config)[0]
    assert one.labels.tolist() == [1, 0, 1]
    assert one.scores[2] < 0.1  # decayed
    np.testing.assert_allclose(one.boxes[1], [120, 0.6 * 117, 199, 0.9 * 117], rtol=1e-5)  # 118 is found as 117
    config.eval.matrix = "miemiedetection"
    assert detections(predicted(), sizes, config)[0].boxes[1][3] == pytest.approx(0.9 * 118)
    config.eval.nms_kind = "multiclass"
    assert detections(predicted(), sizes, config)[0].labels.tolist() == [1, 0]
    config.eval.nms_kind = "diou"
    with pytest.raises(PortdetError, match="diou"):
        detections(predicted(), sizes, config)
    config.eval.nms_kind, config.data.resize = "matrix", "letterbox"
    with pytest.raises(PortdetError, match="letterbox"):
        detections(predicted(), sizes, config)
