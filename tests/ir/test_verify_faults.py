"""A sound graph passes; each planted fault is found, with the spec's file and line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from portdet import ops
from portdet.errors import PortdetError
from portdet.ir.graph import Function, ModuleGraph, Node, ParamRef, Size, Value
from portdet.ir.trace import graph
from portdet.ir.verify import verify
from portdet.models import Detector
from portdet.spec import BatchNorm2d, Conv2d, Module, Param, function, method, update


@function
def scaled(x: Any, by: float) -> Any:
    return x * by


class Small(Module):
    """Two calls of one convolution at two sizes, a norm, a method, a function, a buffer."""

    def __init__(self) -> None:
        self.gain, self.seen = Param((4, 1, 1), "ones"), Param((4,), "zeros", trainable=False)
        self.conv, self.norm = Conv2d(4, 4, 1), BatchNorm2d(4)

    @method
    def flat(self, x: Any) -> Any:
        return ops.reshape(x, shape=(x.shape[0], -1))

    def forward(self, x: Any) -> Any:
        half = self.conv(x[..., 0:2])
        y = self.norm(self.conv(x)) * self.gain
        update(self, "seen", ops.mean(y, axis=(0, 2, 3)))
        return self.flat(scaled(y, 2.0)), half


def small(training: bool = True) -> ModuleGraph:
    return graph(Small(), {"forward": (training, {"x": ((2, 4, 3, 6), "float")})})


def forward(traced: ModuleGraph) -> Function:
    return traced.methods["forward", True]


def with_forward(traced: ModuleGraph, **changes: Any) -> ModuleGraph:
    changed = dataclasses.replace(forward(traced), **changes)
    return dataclasses.replace(traced, methods={**traced.methods, ("forward", True): changed})


def with_node(match: Callable[[Node], bool], change: Callable[[Node], list[Node]]) -> ModuleGraph:
    """The small graph with its first matching node replaced."""
    traced = small()
    nodes = list(forward(traced).nodes)
    place = next(i for i, node in enumerate(nodes) if match(node))
    nodes[place : place + 1] = change(nodes[place])
    return with_forward(traced, nodes=tuple(nodes))


def calls(name: str) -> Callable[[Node], bool]:
    return lambda node: node.call is not None and node.call.name == name


def is_op(name: str) -> Callable[[Node], bool]:
    return lambda node: node.op == name


def altered(node: Node, **changes: Any) -> list[Node]:
    return [dataclasses.replace(node, **changes)]


def retyped(node: Node, **changes: Any) -> list[Node]:
    return altered(node, outs=tuple(dataclasses.replace(out, **changes) for out in node.outs))


def recalled(node: Node, **changes: Any) -> list[Node]:
    assert node.call is not None
    return altered(node, call=dataclasses.replace(node.call, **changes))


def stale_size() -> ModuleGraph:
    traced = small()
    flat = traced.methods["flat", True]
    node = flat.nodes[0]
    size = node.attrs["shape"][0]
    wrong = dataclasses.replace(node, attrs={"shape": (Size(size.kind, size.args, 12), -1)})
    return with_flat(traced, dataclasses.replace(flat, nodes=(wrong,)))


def with_flat(traced: ModuleGraph, flat: Function) -> ModuleGraph:
    return dataclasses.replace(traced, methods={("flat", True): flat})


def inside_scaled(change: Callable[[Function, ModuleGraph], Function]) -> ModuleGraph:
    def changed(node: Node) -> list[Node]:
        assert node.call is not None
        return recalled(node, function=change(node.call.function, small()))

    return with_node(calls("scaled"), changed)


def weight_in_function(function: Function, _: ModuleGraph) -> Function:
    node = function.nodes[0]
    args = (node.args[0], ParamRef((4, 1, 1), "float", name="gain"))
    return dataclasses.replace(function, nodes=(dataclasses.replace(node, args=args),))


def call_in_function(function: Function, traced: ModuleGraph) -> Function:
    node = next(node for node in forward(traced).nodes if calls("norm")(node))
    return dataclasses.replace(function, nodes=(dataclasses.replace(node, args=function.inputs), *function.nodes))


def second_call_differs() -> ModuleGraph:
    """The second call of `conv`, with other pads than the recorded first."""
    traced = small()
    first = traced.children["conv"].methods["forward", True]

    def padded(node: Node) -> Node:
        if node.call is None or node.call.name != "conv" or node.call.function is first:
            return node
        inner = node.call.function.nodes[0]
        out = dataclasses.replace(inner.outs[0], dims=(2, 4, 5, 8))
        inner = dataclasses.replace(inner, attrs={**inner.attrs, "pads": (1, 1, 1, 1)}, outs=(out,))
        changed = dataclasses.replace(node.call.function, nodes=(inner,), output=out)
        outs = (dataclasses.replace(node.outs[0], dims=out.dims),)
        return dataclasses.replace(node, outs=outs, call=dataclasses.replace(node.call, function=changed))

    return with_forward(traced, nodes=tuple(padded(node) for node in forward(traced).nodes))


def child_without_mode() -> ModuleGraph:
    traced = small()
    norm = dataclasses.replace(traced.children["norm"], methods={})
    return dataclasses.replace(traced, children={**traced.children, "norm": norm})


def child_at_two_places() -> ModuleGraph:
    traced = small()
    return dataclasses.replace(traced, children={**traced.children, "again": traced.children["norm"]})


def wrong_key() -> ModuleGraph:
    traced = small()
    return dataclasses.replace(traced, methods={("forward", False): forward(traced)})


def updating(name: str, value: Value | None = None) -> ModuleGraph:
    traced = small()
    seen = forward(traced).updates["seen"]
    return with_forward(traced, updates={name: value or seen})


STRAY = Value((2, 4, 3, 6), "float", "elsewhere.py:1", "stray")

FAULTS: dict[str, tuple[Callable[[], ModuleGraph], str]] = {
    "node removed": (lambda: with_node(is_op("mul"), lambda node: []), "used before it is made"),
    "node made twice": (lambda: with_node(is_op("mul"), lambda node: [node, node]), "made twice"),
    "other shape": (lambda: with_node(is_op("mul"), lambda n: retyped(n, dims=(2, 4, 3, 5))), "mul gives"),
    "other dtype": (lambda: with_node(is_op("mul"), lambda n: retyped(n, dtype="int32")), "mul gives"),
    "unknown op": (lambda: with_node(is_op("mul"), lambda n: altered(n, op="mull")), "unknown op 'mull'"),
    "unknown attribute": (lambda: with_node(is_op("mean"), lambda n: altered(n, attrs={"axes": 1})), "axes"),
    "impossible index": (lambda: with_node(is_op("getitem"), lambda n: altered(n, attrs={"index": (9,)})), "getitem"),
    "strided slice": (
        lambda: with_node(is_op("getitem"), lambda n: altered(n, attrs={"index": (slice(0, 4, 2),)})),
        "slice with step 2",
    ),
    "value of another function": (
        lambda: with_node(is_op("mul"), lambda n: altered(n, args=(n.args[0], STRAY))),
        "'stray' (made at elsewhere.py:1) is used before",
    ),
    "unknown weight": (
        lambda: with_node(
            is_op("mul"), lambda n: altered(n, args=(n.args[0], ParamRef((4, 1, 1), "float", name="gian")))
        ),
        "'gian' is not a weight of Small",
    ),
    "weight of other shape": (
        lambda: with_node(is_op("mul"), lambda n: altered(n, args=(n.args[0], ParamRef((), "float", name="gain")))),
        "'gain' is (4, 1, 1), read as ()",
    ),
    "unknown child": (lambda: with_node(calls("norm"), lambda n: recalled(n, name="nrom")), "no child 'nrom'"),
    "argument missing": (lambda: with_node(calls("norm"), lambda n: altered(n, args=())), "norm takes"),
    "argument of other type": (
        lambda: with_node(calls("norm"), lambda n: altered(n, args=(ParamRef((4, 1, 1), "float", name="gain"),))),
        "norm takes",
    ),
    "call's result of other type": (
        lambda: with_node(calls("norm"), lambda n: retyped(n, dims=(2, 4, 3, 7))),
        "call gives",
    ),
    "call's result missing": (lambda: with_node(calls("flat"), lambda n: altered(n, outs=())), "call gives"),
    "unknown method": (lambda: with_node(calls("flat"), lambda n: recalled(n, name="flatt")), "has no flatt"),
    "child in the other mode only": (child_without_mode, "has no forward for training=True"),
    "second call differs": (second_call_differs, "not do the same in its second call"),
    "two names for one module": (child_at_two_places, "is held as 'again' too"),
    "method under another name": (wrong_key, "method ('forward', False) is 'forward' (True)"),
    "stale size": (stale_size, "size is 2, recorded as 12"),
    "weight in a function": (lambda: inside_scaled(weight_in_function), "'gain' is not a weight of a spec function"),
    "module call in a function": (lambda: inside_scaled(call_in_function), "'scaled' calls a module"),
    "output never made": (lambda: with_forward(small(), output=(STRAY,)), "'stray' (made at"),
    "update of a trained weight": (lambda: updating("gain"), "update of 'gain', which is a trained weight"),
    "update of nothing": (lambda: updating("saen"), "update of 'saen', which is no buffer here"),
    "update of other shape": (
        lambda: with_forward(small(), updates={"seen": forward(small()).inputs[0]}),
        "used before it is made",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found(name: str) -> None:
    broken, said = FAULTS[name]
    with pytest.raises(PortdetError) as caught:
        verify(broken())
    assert said in caught.value.what
    assert caught.value.where.startswith(f"{Path(__file__).name}:")


def test_update_of_other_shape_is_found() -> None:
    traced = small()
    with pytest.raises(PortdetError, match=r"update of 'seen' \(4,\) with \(2, 4, 3, 6\)"):
        verify(with_forward(traced, updates={"seen": forward(traced).inputs[0]}))


@pytest.mark.parametrize("training", [True, False])
def test_a_sound_graph_passes(training: bool) -> None:
    verify(small(training))


def test_yolov3_passes(tiny: Detector) -> None:
    verify(tiny.graph)
