"""Types and sizes of a Function, worked out again: for the verifier, for other input shapes, for a run on arrays."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Sequence
from typing import Any

from portdet.errors import PortdetError
from portdet.ir.graph import Function, Node, ParamRef, Size, Value, leaves
from portdet.ops.table import OPS, Type, type_of

_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
}


def size_value(size: Size, shape: Callable[[Value], tuple[int, ...]]) -> int:
    """The number that a size has where its tensors have these shapes."""
    if size.kind == "dim":
        value, axis = size.args
        return int(shape(value)[axis])
    left, right = (size_value(arg, shape) if isinstance(arg, Size) else int(arg) for arg in size.args)
    return _ARITHMETIC[size.kind](left, right)


def substitute(item: Any, leaf: Callable[[Value | Size], Any]) -> Any:
    """An argument, attribute or output with every Value and Size replaced; the structure stays."""
    if isinstance(item, Value | Size):
        return leaf(item)
    if isinstance(item, tuple | list):
        return tuple(substitute(part, leaf) for part in item)
    if isinstance(item, dict):
        return {key: substitute(part, leaf) for key, part in item.items()}
    return item


def values_in(item: Any) -> list[Value]:
    """Every Value that an argument, attribute or output needs, those of its sizes included."""
    found: list[Value] = []

    def note(leaf: Value | Size) -> None:
        if isinstance(leaf, Value):
            found.append(leaf)
        else:
            substitute(leaf.args, note)

    substitute(item, note)
    return found


def node_types(node: Node) -> list[Type]:
    """The types that a node's outputs must have. Raises PortdetError, naming the spec's line, if no such op or type."""
    if node.call is not None:
        return [type_of(value) for value in leaves(node.call.function.output)]
    if node.op not in OPS:
        raise PortdetError(f"unknown op '{node.op}'", where=node.where, fix="ops are defined in portdet/ops")
    types = [type_of(arg) for arg in node.args]
    try:
        return [OPS[node.op].infer(*types, **node.attrs)]
    except PortdetError as error:
        raise PortdetError(f"{node.op}: {error.what}", where=node.where, fix=error.fix) from None
    except (ValueError, IndexError, TypeError, KeyError) as error:
        raise PortdetError(f"{node.op} of {types}: {error}", where=node.where) from None


def retype(function: Function, types: Sequence[Type]) -> Function:
    """The same Function for inputs of other shapes: new Values, sizes worked out again, callees too."""
    new: dict[Value, Value] = {}

    def leaf(item: Value | Size) -> Any:
        if isinstance(item, ParamRef):
            return item
        if isinstance(item, Value):
            return new[item]
        args = substitute(item.args, leaf)
        return Size(item.kind, args, size_value(item, lambda value: leaf(value).dims))

    for value, (dims, dtype) in zip(function.inputs, types, strict=True):
        new[value] = dataclasses.replace(value, dims=dims, dtype=dtype)
    nodes = []
    for node in function.nodes:
        args, attrs, call = substitute(node.args, leaf), substitute(dict(node.attrs), leaf), node.call
        if call is not None:
            call = dataclasses.replace(call, function=retype(call.function, [type_of(arg) for arg in args]))
        fresh = dataclasses.replace(node, args=args, attrs=attrs, call=call)
        for old, (dims, dtype) in zip(node.outs, node_types(fresh), strict=True):
            new[old] = dataclasses.replace(old, dims=dims, dtype=dtype)
        nodes.append(dataclasses.replace(fresh, outs=tuple(new[old] for old in node.outs)))
    return dataclasses.replace(
        function,
        inputs=tuple(new[value] for value in function.inputs),
        nodes=tuple(nodes),
        output=substitute(function.output, leaf),
        updates=substitute(dict(function.updates), leaf),
    )
