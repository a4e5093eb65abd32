"""Initial weights: the same for everyone, and distributed as the frameworks' default for convolutions."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from portdet.errors import PortdetError
from portdet.ir.trace import graph
from portdet.models import load_model
from portdet.spec import Conv2d
from portdet.spec.init import initial_weights

TINY = {"name": "yolov3", "width": 0.125, "depths": (1, 1, 1, 1, 1), "classes": 3}


def test_values_depend_on_seed_and_name_alone() -> None:
    small = initial_weights(load_model(TINY, imgsz=64).graph, 3)
    deeper = initial_weights(load_model({**TINY, "depths": (1, 2, 1, 1, 1)}, imgsz=96).graph, 3)
    other = initial_weights(load_model(TINY, imgsz=64).graph, 4)
    name = "backbone.conv5.conv.weight"
    assert np.array_equal(small[name], deeper[name])
    assert not np.array_equal(small[name], other[name])
    assert small[name].dtype == np.float32


def test_convolutions_follow_torch_s_default() -> None:
    import torch

    weights = initial_weights(load_model(TINY, imgsz=64).graph, 0)
    kernel, bias = weights["backblock0.conv5.conv.weight"], weights["backblock0.conv6.bias"]
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(kernel.shape[1], kernel.shape[0], 3)
    theirs = layer.weight.detach().numpy()
    assert abs(kernel).max() == pytest.approx(abs(theirs).max(), rel=1e-3)
    assert kernel.std() == pytest.approx(theirs.std(), rel=0.02)
    assert abs(bias).max() <= 1 / math.sqrt(128)  # conv6 reads 128 channels through 1x1


def test_he_normal_is_paddle_s_default() -> None:
    """Paddle 3.3.1's nn.Conv2D(64, 128, 3): std 0.059, bias 0."""
    conv = Conv2d(64, 128, 3, bias=True, init="he_normal")
    weights = initial_weights(graph(conv, {"forward": (False, {"x": ((1, 64, 8, 8), "float")})}), 0)
    assert weights["weight"].std() == pytest.approx(0.059, rel=0.02)
    assert abs(weights["weight"].mean()) < 1e-3
    assert abs(weights["weight"]).max() > 0.059 * 3  # not uniform
    assert (weights["bias"] == 0).all()


def test_norms_start_as_the_identity() -> None:
    weights = initial_weights(load_model(TINY, imgsz=64).graph, 0)
    assert (weights["conv1.norm.weight"] == 1).all()
    assert (weights["conv1.norm.running_var"] == 1).all()
    assert (weights["conv1.norm.bias"] == 0).all()


def test_an_unknown_start_is_an_error() -> None:
    traced = load_model(TINY, imgsz=64).graph
    conv = traced.children["conv1"].children["conv"]
    broken = replace(conv, params={"weight": replace(conv.params["weight"], init="magic")})
    with pytest.raises(PortdetError, match="magic"):
        initial_weights(broken, 0)
