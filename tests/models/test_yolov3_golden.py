"""YOLOv3 against golden values: mindspore-ai/models on MindSpore, from weights of RandomState(0), gave 477.13345."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from portdet.errors import PortdetError
from portdet.models import Detector, load_model
from portdet.reference import run

BOXES = ((10, 20, 41, 63, 1), (50, 5, 90, 40, 2), (3, 3, 9, 8, 0))


def golden_weights(detector: Detector, random: np.random.RandomState) -> dict[str, Any]:
    """Convolution weights and biases drawn in file order, float32; norms at their start."""
    weights = {}
    for name, info in detector.graph.weights().items():
        if len(info.shape) == 4:
            weights[name] = (random.randn(*info.shape) / np.sqrt(np.prod(info.shape[1:]))).astype(np.float32)
        elif name.endswith("conv6.bias"):
            weights[name] = (random.randn(*info.shape) * 0.1).astype(np.float32)
        else:
            weights[name] = np.full(info.shape, float(name.endswith((".weight", "running_var"))), np.float32)
    return weights


def golden_losses(**fields: Any) -> dict[str, float]:
    section = {"name": "yolov3", "classes": 3, "width": 0.125, "depths": (1, 1, 1, 1, 1), **fields}
    detector = load_model(section, imgsz=96, max_boxes=8)
    random = np.random.RandomState(0)
    weights = golden_weights(detector, random)
    inputs: dict[str, np.ndarray[Any, Any]] = {
        "images": random.randn(2, 3, 96, 96).astype(np.float32),
        "boxes": np.zeros((2, 8, 4)),
        "labels": np.zeros((2, 8), np.int32),
        "valid": np.zeros((2, 8), bool),
    }
    for i, (*corners, label) in enumerate(BOXES):
        inputs["boxes"][:, i], inputs["labels"][:, i], inputs["valid"][:, i] = corners, label, True
    losses, _ = run(detector.graph, "loss", True, weights, inputs)
    return {name: float(value) for name, value in losses.items()}


def test_golden_loss() -> None:
    losses = golden_losses()
    assert losses["loss"] == pytest.approx(477.1334, rel=1e-6)
    assert losses["big"] == pytest.approx(16.97483, rel=1e-6)
    assert losses["medium"] == pytest.approx(93.31130, rel=1e-6)
    assert losses["small"] == pytest.approx(366.84738, rel=1e-6)
    assert sum(losses[k] for k in ("xy", "wh", "obj", "cls")) == pytest.approx(losses["loss"], rel=1e-12)


@pytest.mark.parametrize(
    "fields",
    [
        {"activation": "leaky_relu"},
        {"padding": "symmetric"},
        {"round_centres": False},
        {"ignore_threshold": 0.1},
        {"label_smooth": 0.1},
    ],
    ids=lambda fields: str(next(iter(fields))),
)
def test_golden_loss_tells_the_settings_apart(fields: dict[str, Any]) -> None:
    assert golden_losses(**fields)["loss"] != pytest.approx(477.1334, rel=1e-4)


def test_profiles_are_sets_of_defaults() -> None:
    def fields(**section: Any) -> dict[str, Any]:
        small = {"name": "yolov3", "width": 0.125, "depths": (1, 1, 1, 1, 1), **section}
        values: dict[str, Any] = load_model(small).fields.model_dump()
        return values

    mindspore, darknet = fields(), fields(profile="darknet")
    differing = {name: (mindspore[name], darknet[name]) for name in mindspore if mindspore[name] != darknet[name]}
    assert differing == {
        "profile": ("mindspore", "darknet"),
        "activation": ("relu", "leaky_relu"),
        "padding": ("same", "symmetric"),
        "backbone_momentum": (0.9, 0.1),
        "round_centres": (True, False),
        "ignore_boxes": ("level", "all"),
        "mean": ((0.485, 0.456, 0.406), (0.0, 0.0, 0.0)),
        "std": ((0.229, 0.224, 0.225), (1.0, 1.0, 1.0)),
    }
    mixed = fields(profile="darknet", round_centres=True)
    assert (mixed["round_centres"], mixed["activation"]) == (True, "leaky_relu")


def test_same_padding_is_at_the_bottom_and_right() -> None:
    text = {profile: load_model({"name": "yolov3", "profile": profile}).graph for profile in ("mindspore", "darknet")}

    def strided(profile: str) -> set[Any]:
        convs = [module for module in text[profile].walk() if module.config.get("stride") == 2 and module.leaf]
        assert len(convs) == 5
        return {module.config["pads"] for module in convs}

    assert strided("mindspore") == {(0, 1, 0, 1)}
    assert strided("darknet") == {(1, 1, 1, 1)}


@pytest.mark.parametrize(
    ("section", "said", "fix"),
    [
        ({"name": "yolov33"}, "unknown model 'yolov33'", "yolov3"),
        ({"name": "yolov3", "clases": 3}, "unknown key 'model.clases'", "did you mean 'classes'?"),
        ({"name": "yolov3", "classes": 0}, "model.classes = 0", ""),
        ({"name": "yolov3", "activation": "mish"}, "model.activation = 'mish'", ""),
    ],
)
def test_wrong_settings_are_named(section: dict[str, Any], said: str, fix: str) -> None:
    with pytest.raises(PortdetError) as caught:
        load_model(section)
    assert said in caught.value.what
    assert fix in caught.value.fix
