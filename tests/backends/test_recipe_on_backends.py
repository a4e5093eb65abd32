"""Clipping over all gradients and by group, and a frozen body whose statistics go on: every backend against torch in
float64, which steps by its own optimiser and clips by its own function."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pytest

from portdet.reference.distance import distance
from portdet.session import Arrays
from tests.backends.harness import below, require, run_child

STEPS, LR, MOMENTUM, DECAY = 3, 0.05, 0.9, 0.1
BODY = ("conv.weight", "norm.weight", "norm.bias")
TRAINED = (("conv.weight", "head.weight"), ("norm.weight", "norm.bias", "head.bias"))
"""With decay and without."""


@dataclass(frozen=True)
class Case:
    clip_norm: float = 0.0
    by_group: bool = False
    scale: float = 1.0
    frozen: tuple[str, ...] = ()


CASES = {
    "free": Case(),
    "global": Case(0.5),
    "group": Case(0.5, by_group=True),
    "group_scaled": Case(0.5, by_group=True, scale=1024.0),
    "frozen": Case(frozen=BODY),
    "frozen_group": Case(0.5, by_group=True, frozen=BODY),
}
RUNS = [
    ("torch", "eager"),
    pytest.param(("mindspore", "eager"), marks=pytest.mark.slow),
    ("mindspore", "compiled"),
    ("paddle", "eager"),
    ("paddle", "compiled"),
]


def given() -> Arrays:
    random = np.random.default_rng(0)
    drawn = {"conv.weight": random.normal(size=(4, 3, 3, 3)), "head.weight": random.normal(size=(2, 4, 1, 1))}
    drawn |= {"norm.weight": random.uniform(0.5, 2, 4), "norm.bias": random.normal(size=4)}
    drawn |= {"norm.running_mean": np.zeros(4), "norm.running_var": np.ones(4), "head.bias": random.normal(size=2)}
    drawn["images"] = random.normal(1, 2, size=(STEPS, 2, 3, 8, 8))
    return {name: array.astype(np.float32) for name, array in drawn.items()}


@functools.cache
def truth(case: str) -> Arrays:
    """Weights and statistics after the steps."""
    import torch

    settings = CASES[case]
    t = {name: torch.tensor(array, dtype=torch.float64) for name, array in given().items()}
    names = [[name for name in part if name not in settings.frozen] for part in TRAINED]
    parts = [[t[name].requires_grad_() for name in part] for part in names]
    groups = [{"params": part, "weight_decay": decay} for part, decay in zip(parts, (DECAY, 0.0), strict=True)]
    optimizer = torch.optim.SGD(groups, lr=LR, momentum=MOMENTUM)
    for images in t.pop("images"):
        y = torch.nn.functional.conv2d(images, t["conv.weight"], stride=2, padding=1)
        norm = [t[f"norm.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")]
        y = torch.nn.functional.batch_norm(y, *norm, training=True, momentum=0.1, eps=1e-5)
        y = torch.nn.functional.conv2d(torch.sigmoid(y), t["head.weight"], t["head.bias"])
        optimizer.zero_grad()
        (2 * (y * y).mean()).backward()
        if settings.clip_norm:
            for part in parts if settings.by_group else [parts[0] + parts[1]]:
                torch.nn.utils.clip_grad_norm_(part, settings.clip_norm)
        optimizer.step()
    return {f"weights/{name}": tensor.detach().numpy() for name, tensor in t.items()}


@functools.cache
def child(backend: str, mode: str) -> Arrays:
    return run_child("recipe_child.py", backend, mode, inputs=given())


@pytest.fixture(params=RUNS, ids=lambda pair: "-".join(pair), scope="module")
def found(request: pytest.FixtureRequest) -> Arrays:
    require(request.param[0])
    return child(*request.param)


@pytest.mark.parametrize("case", CASES)
def test_three_steps(found: Arrays, case: str) -> None:
    got, want = below(found, case), truth(case)
    far = {name: distance(got[name], want[name]) for name in want if not distance(got[name], want[name]) <= 3e-6}
    assert far == {}


def test_a_frozen_body_keeps_its_weights_and_goes_on_with_its_statistics(found: Arrays) -> None:
    got, start = below(found, "frozen/weights"), given()
    for name in BODY:
        assert got[name].tobytes() == start[name].tobytes()
        assert f"frozen/momentum/{name}" not in found
    for name in ("norm.running_mean", "norm.running_var", "head.weight", "head.bias"):
        assert np.abs(got[name] - start[name]).max() > 0.01


def test_the_cases_differ() -> None:
    """What a case is about changes its numbers by more than a thousandth."""
    apart = {
        (a, b): max(distance(truth(a)[name], truth(b)[name]) for name in truth(a))
        for a, b in (("free", "global"), ("global", "group"), ("free", "frozen"), ("frozen", "frozen_group"))
    }
    assert all(value > 1e-3 for value in apart.values())
