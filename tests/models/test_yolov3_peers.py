"""YOLOv3 on the reference against programs that are not ours: mindspore-ai/models on MindSpore, and darknet in C."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.models import Detector, load_model
from portdet.reference import gradients, run
from tests.bundles import first, near, places

Array = np.ndarray[Any, Any]
Weights = dict[str, Array]


@pytest.fixture(scope="module")
def full() -> Detector:
    """As the bundle has it: 62 M weights, 80 classes, two images of 128 px."""
    return load_model({"name": "yolov3"}, imgsz=128, max_boxes=4)


@pytest.fixture(scope="module")
def mindspore_inputs(oracles: Path) -> dict[str, Array]:
    bundle = np.load(oracles / "msmodels_yolov3" / "inputs.npz")
    inputs = {
        "images": bundle["image"],
        "boxes": np.zeros((2, 4, 4)),
        "labels": np.zeros((2, 4), np.int32),
        "valid": np.zeros((2, 4), bool),
    }
    for image in range(2):
        boxes, labels = bundle[f"raw_box.{image}"], bundle[f"raw_class.{image}"]
        inputs["boxes"][image, : len(boxes)], inputs["labels"][image, : len(boxes)] = boxes, labels
        inputs["valid"][image, : len(boxes)] = True
    return inputs


def decoded_rows(bundle: Any) -> Array:
    """mindspore-ai/models' three decoded outputs in our order: small, medium, big; rows, columns, anchors."""
    return np.concatenate([bundle[f"decoded.{level}"].reshape(2, -1, 85) for level in (2, 1, 0)], axis=1)


def test_mindspore_features_heads_and_boxes(
    full: Detector, oracles: Path, mindspore_inputs: dict[str, Array], mindspore_weights: Weights
) -> None:
    want = np.load(oracles / "msmodels_yolov3" / "eval.npz")
    images, weights = {"images": mindspore_inputs["images"]}, mindspore_weights
    seen: dict[str, Any] = {}
    decoded, _ = run(full.graph, "predict", False, weights, images, record=seen.__setitem__)
    for level in range(3):
        near(seen["backbone"][level], want[f"backbone.{level}"], 2e-5)
        near(seen[f"backblock{level}"][1], want[f"head.{level}"], 2e-5)
    rows = decoded_rows(want)
    np.testing.assert_allclose(decoded[..., :2], rows[..., :2], atol=2e-6)
    np.testing.assert_allclose(decoded[..., 2:4], rows[..., 2:4], rtol=5e-5)
    np.testing.assert_allclose(decoded[..., 4:], rows[..., 4:], atol=1e-5)


def test_mindspore_loss_and_statistics(
    full: Detector, oracles: Path, mindspore_inputs: dict[str, Array], mindspore_weights: Weights
) -> None:
    want = np.load(oracles / "msmodels_yolov3" / "train.npz")
    losses, updated = run(full.graph, "loss", True, mindspore_weights, mindspore_inputs)
    assert float(losses["loss"]) == pytest.approx(float(want["loss.total"]), rel=2e-6)
    for level in ("big", "medium", "small"):
        assert float(losses[level]) == pytest.approx(float(want[f"loss.{level}"]), rel=5e-6)
    names = [name for name in want.files if name.startswith("bn_after.")]
    assert len(names) == 42
    for name in names:
        ours = name.removeprefix("bn_after.yolo_network.feature_map.")
        ours = ours.replace(".1.moving_mean", ".norm.running_mean").replace(".1.moving_variance", ".norm.running_var")
        near(updated[ours], want[name], 1e-5)


@pytest.mark.slow
def test_mindspore_gradients(
    full: Detector, oracles: Path, mindspore_inputs: dict[str, Array], mindspore_weights: Weights
) -> None:
    """A few elements by central differences; all of them are the backends' tests.

    In float32 six leaky ReLUs of backblock1 stand on the other side of zero than in float64, which moves the gradient
    of what lies before them (conv1) by 0.4 % of its largest element.
    """
    want = np.load(oracles / "msmodels_yolov3" / "train.npz")
    chosen = {
        "backblock0.conv6.bias": ("backblock0.conv6.bias", (4, 90), 1e-5),
        "backblock2.conv5.1.beta": ("backblock2.conv5.norm.bias", (1, 200), 1e-5),
        "conv1.1.gamma": ("conv1.norm.weight", (0,), 1e-2),
    }
    picked = {ours: indices for ours, indices, _ in chosen.values()}
    got = gradients(
        full.graph, "loss", True, mindspore_weights, mindspore_inputs, lambda out: out["loss"], picked, step=1e-6
    )
    for theirs, (ours, indices, tolerance) in chosen.items():
        gradient = want[f"grad.yolo_network.feature_map.{theirs}"]
        assert np.abs(got[ours] - gradient[list(indices)]).max() <= tolerance * np.abs(gradient).max(), ours


def test_mindspore_targets(oracles: Path, mindspore_inputs: dict[str, Array]) -> None:
    """y_true of its transforms.py: which cells, which boxes."""
    from portdet.assign.yolov3 import assign, box_targets
    from portdet.models.yolov3 import ANCHORS

    want = np.load(oracles / "msmodels_yolov3" / "inputs.npz")
    place, _, best = box_targets(mindspore_inputs["boxes"], mindspore_inputs["images"], ANCHORS, True)
    positives = 0
    for level, grid in enumerate((4, 8, 16)):
        head = np.zeros((2, 1, grid, grid))
        labels, valid = mindspore_inputs["labels"], mindspore_inputs["valid"]
        row, winner, _, targets = assign(head, place, best, labels, valid, 6 - 3 * level, 80, 0.0)
        made = np.zeros((2, grid * grid * 3, 85), np.float32)
        for image, box in zip(*np.nonzero(winner), strict=True):
            made[image, row[image, box]] = [*place[image, box], 1, *targets[image, box]]
        np.testing.assert_array_equal(made.reshape(2, grid, grid, 3, 85), want[f"y_true.{level}"])
        positives += int(winner.sum())
    assert positives == 5


def test_another_padding_is_told_apart(
    oracles: Path, mindspore_inputs: dict[str, Array], mindspore_weights: Weights
) -> None:
    """darknet's padding with these weights gives other features."""
    other = load_model({"name": "yolov3", "padding": "symmetric"}, imgsz=128)
    seen: dict[str, Any] = {}
    images = {"images": mindspore_inputs["images"][:1]}
    run(other.graph, "predict", False, mindspore_weights, images, dtype=np.float32, record=seen.__setitem__)
    got = seen["backbone"][2]
    want = first(got, np.load(oracles / "msmodels_yolov3" / "eval.npz")["backbone.2"])
    assert np.abs(places(got, want) - want).max() > 0.01 * np.abs(want).max()


def darknet_weights(detector: Detector, file: Path) -> dict[str, Array]:
    """darknet's file by its layout: 20 bytes, then for each convolution bias, [scale, mean, variance,] weights."""
    values = np.fromfile(file, np.float32, offset=20)
    weights, place = {}, 0

    def take(name: str) -> None:
        nonlocal place
        shape = detector.graph.weights()[name].shape
        weights[name] = values[place : place + int(np.prod(shape))].reshape(shape)
        place += int(np.prod(shape))

    def order() -> Iterator[str]:
        for name, info in detector.graph.weights().items():
            if len(info.shape) == 4:
                path = name.removesuffix(".weight")
                norm = path.removesuffix("conv") + "norm"
                plain = f"{path}.bias" in detector.graph.weights()
                parts = ("bias", "weight", "running_mean", "running_var")
                yield from (f"{path}.bias",) if plain else (f"{norm}.{part}" for part in parts)
                yield name

    for name in order():
        take(name)
    assert place == len(values)
    return weights


@pytest.fixture(scope="module")
def thin() -> Detector:
    """All widths over 8; darknet's own heads keep 255 outputs."""
    section = {"name": "yolov3", "profile": "darknet", "width": 0.125, "box_weight": 0.75}
    return load_model(section, imgsz=128, max_boxes=3)


def test_darknet_layers(thin: Detector, oracles: Path) -> None:
    folder = oracles / "darknet_yolov3_thin8"
    want = np.load(folder / "eval.npz")
    weights = darknet_weights(thin, folder / "yolov3_thin8.weights")
    seen: dict[str, Any] = {}
    decoded, _ = run(thin.graph, "predict", False, weights, {"images": want["input"]}, record=seen.__setitem__)
    layers = {
        0: seen["backbone.conv0"], 1: seen["backbone.conv1"], 4: seen["backbone.layer1"], 36: seen["backbone"][0],
        61: seen["backbone"][1], 74: seen["backbone"][2],
        81: seen["backblock0"][1], 93: seen["backblock1"][1], 105: seen["backblock2"][1],
    }  # fmt: skip
    for number, got in layers.items():
        near(got, want[f"layer{number}"], 1e-5)
    # the [yolo] layers hold sigmoid(x, y, objectness, classes) and raw w, h: compare them with the decoded rows
    done = 0
    for number, grid in ((106, 16), (94, 8), (82, 4)):
        rows = want[f"layer{number}"].reshape(2, 3, 85, grid, grid).transpose(0, 3, 4, 1, 2).reshape(2, -1, 85)
        ours = decoded[:, done : done + rows.shape[1]]
        np.testing.assert_allclose(ours[..., 4:], rows[..., 4:], atol=1e-5)
        column = np.arange(grid * grid * 3) // 3 % grid
        np.testing.assert_allclose(ours[..., 0], (rows[..., 0] + column) / grid, atol=1e-5)
        done += rows.shape[1]


def test_darknet_deltas(thin: Detector, oracles: Path) -> None:
    """darknet writes -gradient of each logit. Its box terms carry iou_normalizer 0.75. Its ignore rule also asks for a
    class probability above 0.25, which decides nothing here."""
    bundle = np.load(oracles / "darknet_yolov3_thin8" / "train.npz")
    view = bundle["yoloout.94"].astype(np.float64).reshape(2, 3, 85, 8, 8)
    view[:, :, [0, 1, *range(4, 85)]] = logit(view[:, :, [0, 1, *range(4, 85)]])
    # the other levels' terms hold none of these logits: any values stand for theirs
    levels = np.zeros((2, 255, 4, 4)), view.reshape(2, 255, 8, 8), np.zeros((2, 255, 16, 16))
    spec: Any = thin.spec
    spec.heads = lambda images: levels
    truth = bundle["truth"][:, :3].astype(np.float64)
    corners = np.concatenate([truth[..., :2] - truth[..., 2:4] / 2, truth[..., :2] + truth[..., 2:4] / 2], 2) * 128
    inputs = corners, truth[..., 4].astype(np.int32), truth[..., 2] > 0

    def slope(array: Array, place: tuple[int, ...]) -> float:
        start, found = array[place], []
        for sign in (1, -1):
            array[place] = start + sign * 1e-4
            found.append(float(spec.loss(np.zeros((2, 3, 128, 128)), *inputs)["loss"]))
        array[place] = start
        return -(found[0] - found[1]) / 2e-4 * 2  # darknet sums over the batch of two

    delta = bundle["yolodelta.94"].reshape(2, 3, 85, 8, 8)
    positive = np.argwhere(np.abs(delta[:, :, 0:4]).sum(2) > 0)
    assert len(positive) == 5
    assert np.shares_memory(view, levels[1])
    for image, anchor, row, column in positive:
        classes = [5, 40, 5 + int(np.argmax(delta[image, anchor, 5:, row, column]))]
        for channel in (0, 1, 2, 3, 4, *classes):
            place = image, anchor, channel, row, column
            assert slope(view, place) == pytest.approx(delta[place], rel=2e-4, abs=2e-5), place
    quiet = np.argwhere(np.abs(delta[:, :, 0:4]).sum(2) == 0)
    strength = [abs(delta[image, anchor, 4, row, column]) for image, anchor, row, column in quiet]
    for image, anchor, row, column in quiet[np.argsort(strength)[::-1][:80]]:
        place = image, anchor, 4, row, column
        assert slope(view, place) == pytest.approx(delta[place], rel=2e-4, abs=2e-6), place
    del spec.heads


def logit(p: Array) -> Array:
    inverse: Array = np.log(p) - np.log1p(-p)
    return inverse
