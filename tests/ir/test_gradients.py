"""Central differences of the reference against torch's autograd in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from portdet import ops
from portdet.ir.graph import ModuleGraph
from portdet.ir.trace import graph
from portdet.reference import gradients
from portdet.spec import BatchNorm2d, Conv2d, Module


class Net(Module):
    """Convolution, norm, leaky ReLU, cross entropy."""

    def __init__(self) -> None:
        self.conv, self.norm = Conv2d(3, 4, 3, 2, pads=(0, 1, 0, 1)), BatchNorm2d(4)

    def forward(self, x: Any, target: Any) -> dict[str, Any]:
        y = ops.leaky_relu(self.norm(self.conv(x)), slope=0.1)
        return {"loss": ops.sum(ops.bce_with_logits(y, target), axis=None)}


def traced() -> ModuleGraph:
    inputs: Any = {"x": ((2, 3, 8, 8), "float"), "target": ((2, 4, 4, 4), "float")}
    return graph(Net(), {"forward": (True, inputs)})


def test_central_differences_equal_autograd() -> None:
    random = np.random.default_rng(0)
    net = traced()
    weights = {name: random.uniform(0.3, 1.5, info.shape) for name, info in net.weights().items()}
    inputs = {"x": random.normal(size=(2, 3, 8, 8)), "target": random.random((2, 4, 4, 4))}
    chosen = {"conv.weight": [0, 17, 107], "norm.weight": [0, 3], "norm.bias": [1], "x": [5, 200]}
    got = gradients(net, "forward", True, weights, inputs, lambda out: out["loss"], chosen)

    tensors = {k: torch.tensor(v, requires_grad=True) for k, v in {**weights, **inputs}.items()}
    padded = torch.nn.functional.pad(tensors["x"], (0, 1, 0, 1))
    y = torch.nn.functional.conv2d(padded, tensors["conv.weight"], stride=2)
    y = torch.nn.functional.batch_norm(y, None, None, tensors["norm.weight"], tensors["norm.bias"], training=True)
    y = torch.nn.functional.leaky_relu(y, 0.1)
    torch.nn.functional.binary_cross_entropy_with_logits(y, tensors["target"], reduction="sum").backward()
    for name, indices in chosen.items():
        want = tensors[name].grad.numpy().reshape(-1)[indices]
        np.testing.assert_allclose(got[name], want, rtol=2e-6, atol=1e-7, err_msg=name)
