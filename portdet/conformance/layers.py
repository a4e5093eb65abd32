"""Every leaf layer and every module with a kernel of its own: output and gradients, against the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from portdet.backends import load_backend
from portdet.conformance.rows import Row, near
from portdet.ir.graph import ModuleGraph
from portdet.ir.trace import graph
from portdet.lower import emit
from portdet.lower.names import native_names
from portdet.reference import gradients, run
from portdet.session import Array, Arrays, MethodCall, Options, Source
from portdet.spec import BatchNorm2d, Conv2d, DeformConv2d, Module

VALUE, GRADIENT = 5e-6, 5e-5
"""Of the largest value; float32 sums of up to some hundred products."""
SOME = 24  # elements of a tensor whose slope is measured: each takes two runs of the reference


@dataclass(frozen=True)
class Layer:
    """A layer and the shapes of what it is called with. `low`, `high` bound the drawn values, input by input."""

    make: Callable[[], Module]
    shapes: tuple[tuple[int, ...], ...]
    low: tuple[float, ...] = (-1.0,)
    high: tuple[float, ...] = (1.0,)


def _deform(stride: int, composed: bool) -> Layer:
    """Offsets of up to 2.5 lead over all sides of the image."""
    shapes = (2, 2, 5, 6), (2, 18, 5 // stride + stride - 1, 6 // stride), (2, 9, 5 // stride + stride - 1, 6 // stride)
    return Layer(lambda: DeformConv2d(2, 3, 3, stride, composed=composed), shapes, (-1, -2.5, 0.2), (1, 2.5, 1))


LAYERS: dict[str, Layer] = {
    "Conv2d 3x3": Layer(lambda: Conv2d(3, 4, 3, pads=(1, 1, 1, 1)), ((2, 3, 5, 6),)),
    "Conv2d 1x1 with bias": Layer(lambda: Conv2d(3, 4, 1, bias=True), ((2, 3, 4, 5),)),
    "Conv2d 3x3 stride 2": Layer(lambda: Conv2d(3, 4, 3, 2, (1, 1, 1, 1)), ((2, 3, 8, 6),)),
    "Conv2d 3x3 stride 2, padded at bottom and right": Layer(lambda: Conv2d(3, 4, 3, 2, (0, 1, 0, 1)), ((2, 3, 8, 6),)),
    "Conv2d 5x5 in groups": Layer(lambda: Conv2d(4, 6, 5, pads=(2, 2, 2, 2), groups=2), ((1, 4, 6, 5),)),
    "BatchNorm2d": Layer(lambda: BatchNorm2d(3), ((2, 3, 4, 5),)),
    "BatchNorm2d eps 1e-3": Layer(lambda: BatchNorm2d(3, eps=1e-3), ((2, 3, 4, 5),), (-0.1,), (0.1,)),
    "DeformConv2d": _deform(1, False),
    "DeformConv2d stride 2": _deform(2, False),
    "DeformConv2d composed": _deform(1, True),
}


class Net(Module):
    """What is measured: one layer under the name `layer`."""

    def __init__(self, layer: Module) -> None:
        self.layer = layer

    def loss(self, a: Any) -> dict[str, Any]:
        """The layer's output."""
        return {"y": self.layer(a)}


class Net3(Module):
    """The same for a layer with three inputs."""

    def __init__(self, layer: Module) -> None:
        self.layer = layer

    def loss(self, a: Any, b: Any, c: Any) -> dict[str, Any]:
        """The layer's output."""
        return {"y": self.layer(a, b, c)}


def check(backend: str, options: Options, folder: Path, only: Sequence[str] = ()) -> list[Row]:
    """A row for each layer's output, and one for each gradient. only: names of their classes; empty: all."""
    chosen = [(number, name) for number, name in enumerate(LAYERS) if not only or name.split()[0] in only]
    return [row for number, name in chosen for row in _layer(name, number, backend, options, folder)]


def _layer(name: str, number: int, backend: str, options: Options, folder: Path) -> list[Row]:
    traced, weights, inputs, factor = _drawn(LAYERS[name], number)
    chosen, mode = load_backend(backend), options.mode
    try:
        text = emit(traced, chosen.target, title="One layer.")
        source = Source(text, folder / f"layer{number}_{backend}.py")
        native = native_names(traced, chosen.target)
        given = {native[canonical]: array for canonical, array in weights.items()}
        call = MethodCall(source, traced.class_name, "loss", inputs, given, tuple(inputs), {"y": factor})
        outs, grads = chosen.differentiate(call, options)
    except Exception as error:
        return [Row("layers", name, mode, "failed", f"{type(error).__name__}: {error}")]
    truth, _ = run(traced, "loss", True, weights, inputs)
    rows = [near("layers", name, mode, outs["y"], truth["y"], VALUE)]
    trained = {n for n, info in traced.weights().items() if info.trainable}
    asked = {n: _some(array.size) for n, array in {**weights, **inputs}.items() if n in trained or n in inputs}
    slopes = gradients(traced, "loss", True, weights, inputs, lambda out: (out["y"] * factor).sum(), asked, step=1e-6)
    for canonical, slope in slopes.items():
        found = grads[native.get(canonical, canonical)].reshape(-1)[asked[canonical]]
        short = canonical.removeprefix("layer.")
        rows.append(near("layers", f"{name}, gradient of {short}", mode, found, slope, GRADIENT, least=1e-2))
    return rows


def _some(size: int) -> list[int]:
    """Every place of a small array, SOME of a large one."""
    return sorted(set(np.linspace(0, size - 1, min(size, SOME)).astype(int).tolist()))


def _drawn(layer: Layer, number: int) -> tuple[ModuleGraph, Arrays, Arrays, Array]:
    """Graph, weights by canonical name, inputs, and what the output is weighed with; float32 values."""
    random = np.random.default_rng(number)
    net: Module = (Net if len(layer.shapes) == 1 else Net3)(layer.make())
    inputs = {
        name: random.uniform(low, high, shape).astype(np.float32)
        for name, shape, low, high in zip("abc", layer.shapes, layer.low, layer.high, strict=False)
    }
    traced = graph(net, {"loss": (True, {name: (array.shape, "float") for name, array in inputs.items()})})
    weights = {}
    for name, info in traced.weights().items():
        weights[name] = random.uniform(0.5 if name.endswith("running_var") else -1, 1, info.shape).astype(np.float32)
    y = run(traced, "loss", True, weights, inputs)[0]["y"]
    return traced, weights, inputs, random.uniform(0.5, 1.5, y.shape).astype(np.float32)
