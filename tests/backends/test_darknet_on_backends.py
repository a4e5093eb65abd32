"""One training step of AlexeyAB's darknet, from its own weights, on every backend: bundle darknet_yolov3_thin8.

darknet sums updates (-gradients) over the batch of 2, and adds lr / 2 of them, decay * 2 included: our gradient is that
of the mean. Its CPU code normalises by the unbiased variance, and weighs boxes by iou_normalizer 0.75: two named fields
of the spec. It never updates the bias of a normalised convolution (a test says so).

Its CPU code sets a layer's gradient to zero before it adds what comes back through the next convolution (col2im in
AlexeyAB's fork): what came from a sum or a join before is lost, and gradients flow along the convolutions alone. The
child cuts ours in the same places; uncut, they differ 50 times at layer 73 and 10^7 times at layer 0, where gradients
have faded. There darknet's agree to 2 to 7 % alone. Ours do not lack digits (float32 and float64 agree to 5e-5 in every
layer); darknet adds up means and variances value by value in float32, which may be the reason and is not shown to be.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.reference.distance import distance
from portdet.session import Arrays
from portdet_convert import open_weights, yolov3
from tests.backends.harness import require, run_child
from tests.bundles import places

MODEL: dict[str, Any] = {
    "name": "yolov3", "profile": "darknet", "width": 0.125, "norm_variance": "unbiased", "box_weight": 0.75,
}  # fmt: skip
LAYERS = {
    0: "backbone.conv0", 1: "backbone.conv1", 2: "backbone.layer1.0.conv1", 73: "backbone.layer5.3.conv2",
    80: "backblock0.conv5", 81: "backblock0.conv6", 92: "backblock1.conv5", 93: "backblock1.conv6",
    104: "backblock2.conv5", 105: "backblock2.conv6",
}  # fmt: skip
"""darknet's layers whose update the bundle holds."""
FADED = (0, 1, 2)


def given(oracles: Path, **fields: Any) -> Arrays:
    folder = oracles / "darknet_yolov3_thin8"
    channels = tuple(c // 8 for c in yolov3.CHANNELS)
    layers = yolov3.darknet_order(yolov3.DEPTHS, channels, outputs=255)
    weights = open_weights(folder / "yolov3_thin8.weights", lambda _: layers).arrays
    truth = np.load(folder / "train.npz")["truth"][:, :8]
    corners = np.concatenate([truth[..., :2] - truth[..., 2:4] / 2, truth[..., :2] + truth[..., 2:4] / 2], 2) * 128
    return {
        **{f"w/{name}": array for name, array in weights.items()},
        "model": np.array(json.dumps({**MODEL, **fields})),
        "images": np.load(folder / "eval.npz")["input"],
        "boxes": corners.astype(np.float32),
        "labels": truth[..., 4].astype(np.int32),
        "valid": truth[..., 2] > 0,
        "lr": np.array(0.001),
        "decay": np.array(0.0005),
        "one_way": np.array(True),
    }


def names(number: int) -> dict[str, str]:
    """darknet's letters for the tensors of a layer -> ours."""
    layer = LAYERS[number]
    if layer.endswith("conv6"):
        return {"w": f"{layer}.weight", "b": f"{layer}.bias"}
    return {"w": f"{layer}.conv.weight", "s": f"{layer}.norm.weight"}


def differences(found: Arrays, oracles: Path) -> dict[str, float]:
    """Of statistics, gradients and weights after the step, each over its bound."""
    want = np.load(oracles / "darknet_yolov3_thin8" / "train.npz")
    out = {}
    for number, layer in LAYERS.items():
        if f"rmean.{number}" in want:
            for letter, leaf in (("rmean", "running_mean"), ("rvar", "running_var")):
                name = f"{layer}.norm.{leaf}"
                out[f"after {name}"] = distance(found[f"after/{name}"], want[f"{letter}.{number}"]) / 2e-5
        for letter, name in names(number).items():
            update, new = want[f"{letter}upd.{number}"], want[f"{letter}new.{number}"]
            if f"grad/{name}" in found:
                bound = 0.15 if number in FADED else 1e-3
                out[f"grad {name}"] = distance(places(found[f"grad/{name}"].ravel() * -2, update), update) / bound
            out[f"after {name}"] = distance(places(found[f"after/{name}"].ravel(), new), new) / 1e-5
    return out


def stepped(oracles: Path, backend: str, mode: str, **fields: Any) -> dict[str, float]:
    return differences(run_child("peer_child.py", backend, mode, inputs=given(oracles, **fields)), oracles)


@pytest.mark.parametrize(
    ("backend", "mode"),
    [
        ("torch", "eager"),
        ("mindspore", "compiled"),
        ("paddle", "eager"),
        pytest.param("mindspore", "eager", marks=pytest.mark.slow),
        pytest.param("paddle", "compiled", marks=pytest.mark.slow),
    ],
)
def test_a_step_is_darknets(oracles: Path, backend: str, mode: str) -> None:
    """Measured on torch: statistics 1e-5, gradients 7e-4 (faded ones 0.07), weights 3e-6 of the largest value."""
    require(backend)
    found = stepped(oracles, backend, mode)
    assert len(found) == (34 if mode == "compiled" else 54)
    assert {name: ratio for name, ratio in found.items() if not ratio <= 1} == {}


@pytest.mark.parametrize("field", [{"norm_variance": "biased"}, {"box_weight": 1.0}])
def test_each_field_counts(oracles: Path, field: dict[str, Any]) -> None:
    require("torch")
    assert max(stepped(oracles, "torch", "eager", **field).values()) > 2


def test_the_gradient_is_cut(oracles: Path) -> None:
    require("torch")
    inputs = {name: array for name, array in given(oracles).items() if name != "one_way"}
    found = differences(run_child("peer_child.py", "torch", "eager", inputs=inputs), oracles)
    assert found["grad backbone.conv0.conv.weight"] > 1e5
    assert found["grad backbone.layer5.3.conv2.conv.weight"] > 1e3


def test_darknet_leaves_the_bias_of_a_norm(oracles: Path) -> None:
    weights, stored = given(oracles), np.load(oracles / "darknet_yolov3_thin8" / "train.npz")
    for number, layer in LAYERS.items():
        if not layer.endswith("conv6"):
            assert np.abs(stored[f"bupd.{number}"]).max() == 0
            np.testing.assert_array_equal(stored[f"bnew.{number}"], weights[f"w/{layer}.norm.bias"])
