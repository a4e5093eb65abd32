"""The interpreter equals the eager spec bit for bit, at the traced sizes and at others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from portdet.errors import PortdetError
from portdet.ir.trace import graph
from portdet.models import Detector
from portdet.reference import run
from portdet.spec import BatchNorm2d, Module, load

SIZES = [(2, 96, 8), (1, 128, 3)]


@pytest.mark.parametrize("sizes", SIZES)
def test_training_equals_eager(
    tiny: Detector, weights: dict[str, Any], batch: Callable[..., dict[str, Any]], sizes: tuple[int, int, int]
) -> None:
    inputs = batch(*sizes)
    got, updated = run(tiny.graph, "loss", True, weights, inputs)
    load(tiny.spec, weights)
    tiny.spec.set_training(True)
    want = tiny.spec.loss(**inputs)  # type: ignore[attr-defined]
    tiny.spec.set_training(False)
    assert list(got) == list(want)
    for name, value in want.items():
        assert float(got[name]) == float(value), name
        assert np.isfinite(value), name
    buffers = {name: param.array for name, param in tiny.spec.items() if not param.trainable}
    assert set(updated) == set(buffers)
    for name, array in buffers.items():
        np.testing.assert_array_equal(updated[name], array)
        assert not np.array_equal(array, weights[name])


@pytest.mark.parametrize("sizes", SIZES)
def test_prediction_equals_eager(
    tiny: Detector, weights: dict[str, Any], batch: Callable[..., dict[str, Any]], sizes: tuple[int, int, int]
) -> None:
    images = batch(*sizes)["images"]
    got, updated = run(tiny.graph, "predict", False, weights, {"images": images})
    load(tiny.spec, weights)
    np.testing.assert_array_equal(got, tiny.spec.predict(images))  # type: ignore[attr-defined]
    assert got.shape == (sizes[0], 3 * 21 * (sizes[1] // 32) ** 2, 8)
    assert updated == {}


def test_every_module_is_recorded(tiny: Detector, weights: dict[str, Any], batch: Callable[..., Any]) -> None:
    seen: dict[str, Any] = {}
    run(tiny.graph, "predict", False, weights, {"images": batch(1, 96, 1)["images"]}, record=seen.__setitem__)
    assert set(seen) == {module.path for module in tiny.graph.walk()} - {""}
    assert [x.shape[1] for x in seen["backbone"]] == [32, 64, 128]
    np.testing.assert_array_equal(seen["backbone.layer3"], seen["backbone"][0])


def test_single_precision_is_near_and_different(
    tiny: Detector, weights: dict[str, Any], batch: Callable[..., Any]
) -> None:
    images = {"images": batch(1, 96, 1)["images"]}
    exact, _ = run(tiny.graph, "predict", False, weights, images)
    single, _ = run(tiny.graph, "predict", False, weights, images, dtype=np.float32)
    assert single.dtype == np.float32
    difference = np.abs(single - exact).max() / np.abs(exact).max()
    assert 1e-9 < difference < 1e-4


class Twice(Module):
    """One norm, called twice in a step: its statistics move twice."""

    def __init__(self) -> None:
        self.norm = BatchNorm2d(2)

    def forward(self, x: Any) -> Any:
        return self.norm(self.norm(x) * 3.0 + 1.0)


def test_a_module_called_twice_updates_twice() -> None:
    spec = Twice()
    weights = {name: np.full(2, 1.0 + i) for i, (name, _) in enumerate(spec.items())}
    traced = graph(spec, {"forward": (True, {"x": ((2, 2, 3, 3), "float")})})
    x = np.random.default_rng(0).normal(size=(2, 2, 3, 3))
    got, updated = run(traced, "forward", True, weights, {"x": x})
    load(spec, weights)
    spec.set_training(True)
    np.testing.assert_array_equal(got, spec(x))
    np.testing.assert_array_equal(updated["norm.running_mean"], spec.norm.running_mean.array)


def test_missing_things_are_named(tiny: Detector, weights: dict[str, Any]) -> None:
    with pytest.raises(PortdetError, match="no method 'predikt'"):
        run(tiny.graph, "predikt", False, weights, {})
    with pytest.raises(PortdetError, match="input 'images'"):
        run(tiny.graph, "predict", False, weights, {})
    fewer = {name: value for name, value in weights.items() if name != "conv1.norm.bias"}
    with pytest.raises(PortdetError, match=r"conv1\.norm\.bias"):
        run(tiny.graph, "predict", False, fewer, {})
