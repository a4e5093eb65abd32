"""What a spec may not do in a trace, and that the error names the spec's file and line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet import ops
from portdet.errors import PortdetError
from portdet.ir.trace import graph
from portdet.spec import Conv2d, Module, Param, function


class Probe(Module):
    """A module that does one thing in forward."""

    def __init__(self, body: Callable[[Probe, Any], Any]) -> None:
        self.body = body
        self.scale = Param((3,), "ones")
        self.conv = Conv2d(3, 3, 1)

    def forward(self, x: Any) -> Any:
        return self.body(self, x)


ELSEWHERE = Conv2d(3, 3, 1)


@function
def reads_shape(x: Any, rows: Any) -> Any:
    return ops.reshape(x, shape=(rows, -1))


def if_result(self: Probe, x: Any) -> Any:
    return x if ops.less(x, 0.0) else -x  # LINE


def length(self: Probe, x: Any) -> Any:
    return len(x)  # LINE


def iteration(self: Probe, x: Any) -> Any:
    return [row for row in x]  # noqa: C416  # LINE


def array(self: Probe, x: Any) -> Any:
    return ops.add(x, np.ones(3))  # LINE


def foreign_weight(self: Probe, x: Any) -> Any:
    return x * ELSEWHERE.weight  # LINE


def child_weight(self: Probe, x: Any) -> Any:
    return x * self.conv.weight  # LINE


def no_child(self: Probe, x: Any) -> Any:
    return ELSEWHERE(x)  # LINE


def size_as_int(self: Probe, x: Any) -> Any:
    return [x for _ in range(x.shape[0])]  # LINE


def size_as_condition(self: Probe, x: Any) -> Any:
    return x if x.shape[0] else -x  # LINE


def size_to_function(self: Probe, x: Any) -> Any:
    return reads_shape(x, x.shape[0])  # LINE


def size_and_float(self: Probe, x: Any) -> Any:
    return ops.reshape(x, shape=(x.shape[0] * 0.5, -1))  # LINE


def wrong_shapes(self: Probe, x: Any) -> Any:
    return x + x[..., 1:3]  # LINE


def wrong_channels(self: Probe, x: Any) -> Any:
    y = ops.concat([x, x], axis=1)
    return ops.conv2d(y, self.scale, None, stride=1, pads=(0, 0, 0, 0))  # LINE


def step_slice(self: Probe, x: Any) -> Any:
    return x[:, ::2]  # LINE


def tensor_index(self: Probe, x: Any) -> Any:
    return x[x]  # LINE


BODIES = [
    if_result, length, iteration, array, foreign_weight, child_weight, no_child, size_as_int, size_as_condition,
    size_to_function, size_and_float, wrong_shapes, wrong_channels, step_slice, tensor_index,
]  # fmt: skip


def trace(body: Callable[[Probe, Any], Any]) -> Any:
    return graph(Probe(body), {"forward": (False, {"x": ((2, 3, 4, 4), "float")})})


@pytest.mark.parametrize("body", BODIES, ids=lambda body: str(body.__name__))
def test_error_names_file_and_line(body: Callable[[Probe, Any], Any]) -> None:
    lines, first = inspect.getsourcelines(body)
    line = first + next(i for i, text in enumerate(lines) if "# LINE" in text)
    with pytest.raises(PortdetError) as caught:
        trace(body)
    assert caught.value.where == f"{Path(__file__)}:{line}"
    assert caught.value.fix


def test_tracing_ends_after_an_error() -> None:
    with pytest.raises(PortdetError):
        trace(length)
    assert ops.add(np.ones(2), 1.0).tolist() == [2.0, 2.0]


def test_a_weight_may_be_returned_and_stored() -> None:
    traced = trace(lambda self, x: (self.scale, x))
    scale, _ = traced.methods["forward", False].output
    assert (scale.name, scale.dims) == ("scale", (3,))
