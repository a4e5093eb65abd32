"""MindSpore's train step against torch.optim.SGD in float64, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from portdet.reference.distance import distance
from portdet.session import Arrays
from tests.backends.harness import below, require, run_child
from tests.patience import GUARD

NET = """from mindspore import nn, ops


class Net(nn.Cell):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=1, pad_mode='pad', padding=(0, 1, 0, 1), has_bias=True)

    def construct(self, images, boxes=None, labels=None, valid=None):
        y = self.conv(images)
        if boxes is None:
            return y
        return {"loss": 10.0 * (ops.sigmoid(y) * y).mean(), "half": 5.0 * y.mean()}
"""
LR = (0.1, 0.05, 0.02)
DECAY = (0.9, 0.5, 0.99)
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "nesterov": {"nesterov": True},
    "clipped": {"clip_norm": 0.5},
    "not_clipped": {"clip_norm": 1e4},
    "scaled": {"scale": 1024.0},
    "scaled_and_clipped": {"scale": 1024.0, "clip_norm": 0.5, "nesterov": True},
    "dynamic": {"scale": 4096.0, "dynamic_scale": True},
    "frozen": {"groups": ("conv.weight",)},
    "from_zero": {"ema_zero_start": True},
}


@pytest.fixture(scope="module")
def given() -> Arrays:
    random = np.random.default_rng(0)
    return {
        "images": random.normal(size=(3, 2, 3, 8, 8)).astype(np.float32),
        "conv.weight": random.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "conv.bias": random.normal(size=4).astype(np.float32),
    }


@pytest.fixture(scope="module", params=["eager", "compiled"])
def found(request: pytest.FixtureRequest, given: Arrays) -> Arrays:
    require("mindspore")
    return run_child("mindspore_child.py", request.param, inputs=given)


def truth(given: Arrays, case: dict[str, Any]) -> Arrays:
    """The same steps with torch.optim.SGD in float64."""
    import torch

    weights = {n: torch.tensor(given[n], dtype=torch.float64) for n in ("conv.weight", "conv.bias")}
    trained = case.get("groups", tuple(weights))
    for name in trained:
        weights[name].requires_grad_()
    shadow = {n: torch.zeros_like(w) if case.get("ema_zero_start") else w.detach().clone() for n, w in weights.items()}
    settings = {"conv.weight": (0.05, 1.0), "conv.bias": (0.0, 2.0)}
    groups = [{"params": [weights[n]], "weight_decay": settings[n][0]} for n in trained]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=case.get("nesterov", False))
    out: Arrays = {}
    for step in range(3):
        images = torch.tensor(given["images"][step], dtype=torch.float64)
        y = torch.nn.functional.conv2d(torch.nn.functional.pad(images, (0, 1, 0, 1)), *weights.values())
        loss = 10.0 * (torch.sigmoid(y) * y).mean()
        optimizer.zero_grad()
        loss.backward()
        if case.get("clip_norm"):
            torch.nn.utils.clip_grad_norm_([weights[n] for n in trained], case["clip_norm"])
        for group, name in zip(optimizer.param_groups, trained, strict=True):
            group["lr"] = LR[step] * settings[name][1]
        optimizer.step()
        for name, weight in weights.items():
            shadow[name] = DECAY[step] * shadow[name] + (1 - DECAY[step]) * weight.detach()
        out[f"loss{step}"] = loss.detach().numpy()
    out |= {f"weights/{name}": weight.detach().numpy() for name, weight in weights.items()}
    out |= {f"ema/{name}": value.numpy() for name, value in shadow.items()}
    out |= {f"momentum/{n}": optimizer.state[weights[n]]["momentum_buffer"].numpy() for n in trained}
    return out


@pytest.mark.parametrize("label", CASES)
def test_three_steps(found: Arrays, given: Arrays, label: str) -> None:
    got, want = below(found, label), truth(given, CASES[label])
    assert set(got) == set(want)
    assert {name: distance(got[name], want[name]) for name in want if not distance(got[name], want[name]) <= 2e-6} == {}


@pytest.mark.parametrize("label", ["nesterov", "clipped", "frozen", "from_zero"])
def test_the_cases_differ(given: Arrays, label: str) -> None:
    plain, other = truth(given, {}), truth(given, CASES[label])
    assert max(distance(other[n], plain[n]) for n in plain if n in other) > 1e-3


def test_a_step_that_overflows_changes_nothing(found: Arrays) -> None:
    assert found["skipped"]
    assert found["unchanged"]
    assert np.isfinite(found["loss_of_skipped"])


def test_other_rates_compile_nothing(request: pytest.FixtureRequest, found: Arrays) -> None:
    """The first of these steps may: loss scale 1 has its own update. Another image size does. PyNative has none."""
    first, *others, resized = found["graphs"].tolist()
    assert others == [first] * 3
    assert (first > 0, resized > first) == (("compiled" in request.node.name),) * 2


def test_graphs_run_in_graph_mode(request: pytest.FixtureRequest, found: Arrays) -> None:
    """Backward and update; in PyNative a cell runs op by op. Not `ms.jit`, behind which whoever waits spins."""
    graph_mode = 0
    assert found["modes"].tolist() == ([graph_mode] * 2 if "compiled" in request.node.name else [])


def test_the_average_in_the_model(found: Arrays) -> None:
    assert found["held"]
    assert found["moved"] > 1e-3
    assert found["back"]
    assert found["plain_again"]


def test_the_average_on_a_device(found: Arrays) -> None:
    assert found["shadow_moved"] > 1e-2
    assert found["shadows"] <= 1e-6


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("missing", "1 weights missing, first 'conv.bias'"),
        ("misshapen", "weight 'conv.bias' is (4,) in the model, (5,) in the file"),
        ("unknown", "1 unknown weights, first 'conv.gamma'"),
        ("no_average", "this run keeps no EMA"),
        ("device Ascend", "sees no Ascend here"),
        ("device npu:1", "sees no Ascend here"),
        ("device cuda:0", "sees no GPU here"),
        ("device tpu", "unknown device 'tpu' for mindspore"),
        ("device cpu:x", "unknown device 'cpu:x' for mindspore"),
        ("float64", "mindspore runs float32 alone"),
    ],
)
def test_refusals(found: Arrays, what: str, words: str) -> None:
    assert words in str(found[what])
    assert "->" in str(found[what]) or what == "misshapen"


@pytest.mark.parametrize("other", ["torch", "paddle"])
def test_no_second_framework_in_a_process(other: str) -> None:
    code = (
        f"import sys, types; sys.modules['{other}'] = types.ModuleType('{other}')\n"
        "from portdet_mindspore.process import prepare\nprepare()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=GUARD, check=False)
    assert done.returncode != 0
    assert f"mindspore cannot start in a process that has imported {other}" in done.stderr


def test_importing_the_backend_imports_no_framework() -> None:
    code = "import sys, portdet_mindspore; assert 'mindspore' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], timeout=GUARD, check=True)
