"""Paddle's train step against torch.optim.SGD in float64: momentum, decay, clipping, loss scale, EMA, skipped steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from portdet.session import Arrays
from tests.backends.paddle_process import run_for_arrays

SOURCE = """import paddle
from paddle import nn
from paddle.nn import functional as F


class Net(nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2D(3, 4, 3, stride=1, padding=[0, 1, 0, 1])

    def forward(self, images, boxes=None, labels=None, valid=None):
        y = self.conv(images)
        if boxes is None:
            return y
        return {"loss": 10.0 * (F.sigmoid(y) * y).mean()}
"""

LR = (0.1, 0.05, 0.02)
DECAY = (0.9, 0.5, 0.99)
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "compiled": {"mode": "compiled"},
    "nesterov": {"nesterov": True},
    "clipped": {"clip_norm": 0.5},
    "not_clipped": {"clip_norm": 1e4},
    "scaled": {"scale": 1024.0},
    "scaled_and_clipped": {"scale": 1024.0, "clip_norm": 0.5, "nesterov": True},
    "dynamic": {"scale": 4096.0, "dynamic_scale": True},
    "frozen": {"groups": ("conv.weight",)},
}

SCRIPT = f"""
CASES, LR, DECAY = {CASES!r}, {LR!r}, {DECAY!r}
weights = {{name: given[name] for name in ("conv.weight", "conv.bias")}}
names = {{name: name for name in weights}}

def recipe(case, **more):
    groups = (Group(("conv.weight",), 0.05), Group(("conv.bias",), 0.0, 2.0))
    chosen = tuple(g for g in groups if g.names[0] in case.get("groups", names))
    keys = ("nesterov", "clip_norm", "dynamic_scale")
    return Recipe(chosen, momentum=0.9, **{{k: case[k] for k in keys if k in case}}, **more)

for label, case in CASES.items():
    session = open_net("net.py", recipe(case, ema=True), names, case.get("mode", "eager"))
    session.load_weights(weights)
    for step in range(3):
        values = StepValues(LR[step], case.get("scale", 1.0), DECAY[step])
        result = session.train_step(batch(given["images"][step]), values)
        assert not result.skipped
        found[f"{{label}}/loss{{step}}"] = np.array(result.losses["loss"])
        if step == 1:
            saved = session.state()
    found |= {{f"{{label}}/{{name}}": value for name, value in session.state().items()}}

# resume: a fresh session goes on bit for bit
other = open_net("net.py", recipe(CASES["frozen"], ema=True), names)
other.load_state(saved)
other.train_step(batch(given["images"][2]), StepValues(LR[2], 1.0, DECAY[2]))
for name, value in other.state().items():
    assert value.tobytes() == session.state()[name].tobytes(), name

# the EMA that starts at zero, and predictions with it
zero = open_net("net.py", recipe({{}}, ema=True, ema_zero_start=True), names)
zero.load_weights(weights)
zero.train_step(batch(given["images"][0]), StepValues(0.1, 1.0, 0.5))
raw = zero.predict(given["images"][0])
with zero.ema_weights(0.5):
    found["zero/ema"] = zero.predict(given["images"][0])
found["zero/raw"] = raw
assert zero.predict(given["images"][0]).tobytes() == raw.tobytes()

# overflow: skipped where the scale is dynamic, else it reaches the weights
huge = given["images"][0] * np.float32(np.inf)
for dynamic in (True, False):
    session = open_net("net.py", recipe({{"dynamic_scale": dynamic}}, ema=True), names)
    session.load_weights(weights)
    session.train_step(batch(given["images"][0]), StepValues(0.1, 1.0, 0.9))
    before = session.state()
    result = session.train_step(batch(huge), StepValues(0.1, 1.0, 0.9))
    after = session.state()
    found[f"overflow/{{dynamic}}"] = np.array(
        [result.skipped, all(before[k].tobytes() == after[k].tobytes() for k in before)])
found["activations"] = zero.activations(given["images"][0])["conv"]
"""


@pytest.fixture(scope="module")
def given() -> Arrays:
    rng = np.random.default_rng(5)
    return {
        "images": rng.normal(0, 1, (3, 2, 3, 6, 6)).astype(np.float32),
        "conv.weight": rng.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32),
        "conv.bias": rng.normal(0, 0.3, 4).astype(np.float32),
    }


@pytest.fixture(scope="module")
def found(given: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    folder: Path = tmp_path_factory.mktemp("steps")
    (folder / "net.py").write_text(SOURCE)
    return run_for_arrays(SCRIPT, folder, given)


def forward(images: Any, weight: Any, bias: Any) -> Any:
    return torch.nn.functional.conv2d(torch.nn.functional.pad(images, (0, 1, 0, 1)), weight, bias)


def reference(given: Arrays, case: dict[str, Any]) -> dict[str, Any]:
    """Three steps in float64: losses, weights, momentum, EMA."""
    weight, bias = (torch.from_numpy(given[f"conv.{leaf}"]).double().requires_grad_() for leaf in ("weight", "bias"))
    tensors = {"conv.weight": weight, "conv.bias": bias}
    trained = case.get("groups", tuple(tensors))
    groups = [{"params": [weight], "weight_decay": 0.05, "scale": 1.0}]
    if "conv.bias" in trained:
        groups.append({"params": [bias], "weight_decay": 0.0, "scale": 2.0})
    sgd = torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=case.get("nesterov", False))
    shadow = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    out: dict[str, Any] = {}
    for step in range(3):
        sgd.zero_grad()
        y = forward(torch.from_numpy(given["images"][step]).double(), weight, bias)
        loss = 10 * (torch.sigmoid(y) * y).mean()
        loss.backward()
        if case.get("clip_norm"):
            torch.nn.utils.clip_grad_norm_([tensors[n] for n in trained], case["clip_norm"])
        for group in sgd.param_groups:
            group["lr"] = LR[step] * group["scale"]
        sgd.step()
        out[f"loss{step}"] = loss.item()
        for name, tensor in tensors.items():
            shadow[name] = DECAY[step] * shadow[name] + (1 - DECAY[step]) * tensor.detach()
    for name, tensor in tensors.items():
        out[f"weights/{name}"], out[f"ema/{name}"] = tensor.detach().numpy(), shadow[name].numpy()
        if name in trained:
            out[f"momentum/{name}"] = sgd.state[tensor]["momentum_buffer"].numpy()
    return out


@pytest.mark.parametrize("label", list(CASES))
def test_three_steps_equal_torch(given: Arrays, found: Arrays, label: str) -> None:
    wanted = reference(given, CASES[label])
    assert {key.partition("/")[2] for key in found if key.startswith(f"{label}/")} == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[f"{label}/{name}"], value, rtol=3e-6, atol=3e-7, err_msg=name)


def test_the_cases_differ(found: Arrays) -> None:
    """A setting without effect would pass: each must move the weights away from the plain run."""
    plain = found["plain/weights/conv.weight"]
    for label in ("nesterov", "clipped"):
        assert np.abs(found[f"{label}/weights/conv.weight"] - plain).max() > 1e-3
    np.testing.assert_allclose(found["not_clipped/weights/conv.weight"], plain, rtol=1e-6, atol=1e-7)
    assert found["frozen/weights/conv.bias"].tobytes() != found["plain/weights/conv.bias"].tobytes()


def test_frozen_weights_keep_their_bits(given: Arrays, found: Arrays) -> None:
    assert found["frozen/weights/conv.bias"].tobytes() == given["conv.bias"].tobytes()


def test_ema_from_zero(given: Arrays, found: Arrays) -> None:
    """decay 0.5 from zero is half the weights, which the correction 0.5 makes whole."""
    np.testing.assert_allclose(found["zero/ema"], found["zero/raw"], rtol=1e-6)


def test_overflow(found: Arrays) -> None:
    assert found["overflow/True"].tolist() == [True, True]
    assert found["overflow/False"].tolist() == [False, False]


def test_activations_are_outputs(found: Arrays) -> None:
    np.testing.assert_array_equal(found["activations"], found["zero/raw"])
