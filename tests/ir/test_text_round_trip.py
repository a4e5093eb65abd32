"""The printed form: it reads back to the same text and the same numbers, and holds no size of its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from portdet import ops
from portdet.errors import PortdetError
from portdet.ir.graph import ModuleGraph
from portdet.ir.parse import parse_graph
from portdet.ir.text import print_function, print_graph
from portdet.ir.trace import graph
from portdet.ir.verify import verify
from portdet.models import Detector
from portdet.reference import run
from portdet.spec import Conv2d, Module, Param, Sequential, function, method, update


@function
def shift(x: Any, by: tuple[float, ...], name: str, limit: float) -> Any:
    table = ops.constant(x, values=((x.shape[0] - (x.shape[2] - 1)) // 2, *by))
    return ops.minimum(x, limit) + ops.reshape(table, shape=(1, -1, 1, 1))


class Everything(Module):
    """Each form that the text has."""

    def __init__(self, label: str = "a  # b -> c", channels: tuple[int, ...] = (3,), ratio: float = 1e-7) -> None:
        self.gain = Param((3, 1, 1), "ones")
        self.seen = Param((3,), "zeros", trainable=False)
        self.stack = Sequential([Conv2d(3, 3, 1), Conv2d(3, 3, 3, pads=(1, 1, 1, 1), bias=True)])

    @method
    def half(self, x: Any) -> Any:
        return ops.reshape(x, shape=(x.shape[0] * 2, -1, x.shape[2] // 2, x.shape[3]))[:, -1:, 0, None]

    def forward(self, x: Any) -> dict[str, Any]:
        big = self.stack(x * self.gain)
        small = self.stack(x[..., 2:4])
        update(self, "seen", self.seen + ops.mean(big, axis=(0, 2, 3)))
        y = shift(big, (1.0, -2.5), "a '\" -> b", float("inf"))
        y = shift(small, (0.5, 0.0), "none", float("-inf")) + ops.sum(y, axis=None)
        return {"pair": (y, (self.half(x),)), "x": x, "gain": self.gain}


def everything() -> ModuleGraph:
    return graph(Everything(), {"forward": (True, {"x": ((2, 3, 4, 6), "float")})})


def round_trip(traced: ModuleGraph) -> ModuleGraph:
    text = print_graph(traced)
    parsed = parse_graph(text)
    assert print_graph(parsed) == text
    verify(parsed)
    return parsed


def test_every_form_reads_back() -> None:
    traced = everything()
    parsed = round_trip(traced)
    for one, two in zip(traced.walk(), parsed.walk(), strict=True):
        assert (one.path, one.class_name, one.leaf, one.where) == (two.path, two.class_name, two.leaf, two.where)
        assert dict(one.config) == dict(two.config)
        assert dict(one.params) == dict(two.params)
        assert list(one.children) == list(two.children)
        assert list(one.methods) == list(two.methods)
    weights = {name: np.random.default_rng(0).normal(size=info.shape) for name, info in traced.weights().items()}
    x = {"x": np.random.default_rng(1).normal(size=(2, 3, 4, 6))}
    want, want_updates = run(traced, "forward", True, weights, x)
    got, got_updates = run(parsed, "forward", True, weights, x)
    np.testing.assert_array_equal(got["pair"][0], want["pair"][0])
    np.testing.assert_array_equal(got["pair"][1][0], want["pair"][1][0])
    np.testing.assert_array_equal(got_updates["seen"], want_updates["seen"])


def test_yolov3_reads_back_and_computes_the_same(
    tiny: Detector, weights: dict[str, Any], batch: Callable[..., dict[str, Any]]
) -> None:
    parsed = round_trip(tiny.graph)
    inputs = batch(2, 96, 8)
    want, want_updates = run(tiny.graph, "loss", True, weights, inputs)
    got, got_updates = run(parsed, "loss", True, weights, inputs)
    assert {name: float(value) for name, value in got.items()} == {name: float(value) for name, value in want.items()}
    for name, array in want_updates.items():
        np.testing.assert_array_equal(got_updates[name], array)
    images = {"images": inputs["images"]}
    np.testing.assert_array_equal(
        run(parsed, "predict", False, weights, images)[0], run(tiny.graph, "predict", False, weights, images)[0]
    )


def test_lines_are_what_a_reader_expects(tiny: Detector) -> None:
    lines = print_graph(tiny.graph).splitlines()
    conv = next(line for line in lines if "conv2d" in line)
    assert re.fullmatch(
        r"    _0 = conv2d\(x, self\.weight, None, stride=1, pads=\(1, 1, 1, 1\), groups=1\)"
        r" -> float\[2, 4, 96, 96\]  # layers\.py:\d+",
        conv,
    )
    assert any(re.match(r"    self\.running_mean = _\d+$", line) for line in lines)
    assert any(
        re.match(r"module backbone\.conv0\.conv: Conv2d\(cin=3, cout=4, .*\), leaf  # layers\.py", x) for x in lines
    )


@pytest.mark.parametrize("sizes", [{"batch": 1}, {"batch": 5}, {"imgsz": 160}, {"max_boxes": 3}])
def test_the_trace_depends_on_no_size(
    tiny: Detector, trace_tiny: Callable[..., Detector], sizes: dict[str, int]
) -> None:
    def stripped(traced: ModuleGraph) -> list[str]:
        return [print_function(f, shapes=False) for module in traced.walk() for f in module.methods.values()]

    other = trace_tiny(**sizes)
    assert stripped(other.graph) == stripped(tiny.graph)
    assert print_graph(other.graph) != print_graph(tiny.graph)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("conv2d(", "conv3d(", "unknown op 'conv3d'"),
        ("self.weight, None", "self.wait, None", "'self.wait' is not a weight"),
        ("-> float[2, 3, 4, 6]", "-> float63[2, 3, 4, 6]", "a type is missing"),
        ("mean(big__1", "mean(bigg", "'bigg' is not defined"),
        ("function.shift(", "function.shaft(", "no section 'function shaft'"),
        ("groups=1)", "groups=open('x'))", "cannot read"),
        ("groups=1)", "groups=1", "cannot read"),
    ],
)
def test_a_damaged_text_is_refused_with_its_line(old: str, new: str, said: str) -> None:
    text = print_graph(everything())
    assert old in text
    with pytest.raises(PortdetError, match=re.escape(said)) as caught:
        parse_graph(text.replace(old, new, 1))
    assert re.fullmatch(r"line \d+", caught.value.where)


def test_an_array_has_no_text_form() -> None:
    traced = graph(Everything(channels=(3,)), {"forward": (False, {"x": ((2, 3, 4, 6), "float")})})
    with pytest.raises(PortdetError, match="ndarray"):
        print_graph(ModuleGraph("A", "", {"table": np.ones(2)}, "a.py:1", False, {}, {}, traced.methods))
