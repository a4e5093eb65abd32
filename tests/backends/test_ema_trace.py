"""The moving average of fifty training steps on every backend against its closed form in float64."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest

from portdet.reference.distance import distance
from portdet.session import Array, Arrays
from portdet.train.ema import Ema
from tests.backends.harness import require, run_child

STEPS = 50
KINDS = {
    "threshold": Ema("threshold"),
    "threshold_exact": Ema("threshold_exact", 0.8),  # reached after 35 steps
    "exponential": Ema("exponential", 0.99, 20.0),
    "constant": Ema("constant", 0.9),
}
RUNS = [
    ("torch", "eager"),
    pytest.param(("mindspore", "eager"), marks=pytest.mark.slow),
    ("mindspore", "compiled"),
    ("paddle", "eager"),
]
Decay = Callable[[int], float]
PADDLE: Decay = lambda t: min(0.9998, (1 + t) / (10 + t))  # noqa: E731


def start() -> Arrays:
    random = np.random.default_rng(0)
    drawn = {"conv.weight": random.normal(size=(4, 3, 3, 3))}
    drawn |= {"norm.weight": random.uniform(0.5, 2, 4), "norm.bias": random.normal(size=4)}
    drawn |= {"norm.running_mean": np.zeros(4), "norm.running_var": np.ones(4)}
    return {name: array.astype(np.float32) for name, array in drawn.items()}


@functools.cache
def child(backend: str, mode: str) -> Arrays:
    return run_child("ema_child.py", backend, mode, inputs=start())


@pytest.fixture(params=RUNS, ids=lambda pair: "-".join(pair), scope="module")
def found(request: pytest.FixtureRequest) -> Arrays:
    require(request.param[0])
    return child(*request.param)


def closed(weights: Array, first: Array | None, decay: Decay, correction: Callable[[int], float]) -> Array:
    """sum_i w_i (1 - d_i) prod_{j>i} d_j, plus what is left of the start, over the correction; (50, ...) float64."""
    out = []
    for n in range(1, STEPS + 1):
        kept = [math.prod(decay(j) for j in range(i + 1, n)) for i in range(-1, n)]
        total = sum((1 - decay(i)) * kept[i + 1] * weights[i].astype(np.float64) for i in range(n))
        if first is not None:
            total = total + kept[0] * first.astype(np.float64)
        out.append(total / correction(n))
    return np.stack(out)


def wanted(kind: str, weights: Array, first: Array) -> Array:
    """By the formulas of each kind, written out here."""
    if kind == "threshold":
        return closed(weights, None, PADDLE, lambda n: 1 - PADDLE(n - 1) ** n)
    if kind == "threshold_exact":
        ramp: Decay = lambda t: min(0.8, (1 + t) / (10 + t))  # noqa: E731
        return closed(weights, None, ramp, lambda n: 1 - math.prod(map(ramp, range(n))))
    if kind == "exponential":
        return closed(weights, first, lambda t: 0.99 * (1 - math.exp(-(t + 1) / 20)), lambda _: 1.0)
    return closed(weights, first, lambda _: 0.9, lambda _: 1.0)


def apart(found: Arrays, kind: str, name: str, want: Array) -> float:
    return distance(found[f"{kind}/average/{name}"], want)


@pytest.mark.parametrize("kind", KINDS)
def test_fifty_steps_equal_the_closed_form(found: Arrays, kind: str) -> None:
    """Of every weight and of the norm's statistics, after each of the steps."""
    for name, first in start().items():
        weights = found[f"{kind}/weights/{name}"]
        assert np.abs(weights[-1] - first).max() > 0.01 * np.abs(weights).max(), "it has to move"
        assert apart(found, kind, name, wanted(kind, weights, first)) <= 1e-6, name


FAULTS: dict[str, tuple[Decay, Callable[[int], float]]] = {
    "counted from one": (lambda t: PADDLE(t + 1), lambda n: 1 - PADDLE(n - 1) ** n),
    "no correction": (PADDLE, lambda n: 1.0),
    "exact correction": (PADDLE, lambda n: 1 - math.prod(map(PADDLE, range(n)))),
    "correction of the next step": (PADDLE, lambda n: 1 - PADDLE(n) ** (n + 1)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen(found: Arrays, fault: str) -> None:
    for name in start():
        wrong = closed(found[f"threshold/weights/{name}"], None, *FAULTS[fault])
        assert apart(found, "threshold", name, wrong) > 1e-4


def test_a_start_at_the_weights_and_plain_weights_are_seen(found: Arrays) -> None:
    for name, first in start().items():
        weights = found[f"threshold/weights/{name}"]
        assert apart(found, "threshold", name, weights) > 1e-3
        from_weights = closed(weights, first, PADDLE, lambda n: 1 - PADDLE(n - 1) ** n)
        moved = np.abs(first).max() > 0  # a mean that starts at 0 leaves nothing to see
        assert (apart(found, "threshold", name, from_weights) > 1e-3) == moved
