"""Runs a graph in numpy, at any batch and image size. In float64 it equals the eager spec bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portdet.errors import PortdetError, nearest
from portdet.ir.graph import Function, ModuleGraph, Node, ParamRef, Size, Value
from portdet.ir.infer import size_value, substitute
from portdet.ops.table import OPS

Array = NDArray[Any]
Record = Callable[[str, Any], None]
"""Called with a module's path and what it returned."""


def run(
    graph: ModuleGraph,
    method: str,
    training: bool,
    weights: Mapping[str, Array],
    inputs: Mapping[str, Array],
    *,
    dtype: type[np.floating[Any]] = np.float64,
    record: Record | None = None,
) -> tuple[Any, dict[str, Array]]:
    """Outputs of a traced method, in its structure, and the buffers that it updated by canonical name.

    weights: every weight and buffer by canonical name. inputs: by argument name. `dtype` is the working precision
    ('float' in the graph; 'float32' there stays float32). Raises PortdetError for a missing weight or input.
    """
    function = graph.methods.get((method, training))
    if function is None:
        known = ", ".join(f"{name} (training={mode})" for name, mode in graph.methods)
        raise PortdetError(f"no method '{method}' with training={training}", fix=f"traced: {known}")
    for name in graph.weights():
        if name not in weights:
            raise PortdetError(f"weight '{name}' is missing", fix=nearest(name, weights))
    for value in function.inputs:
        if value.hint not in inputs:
            raise PortdetError(f"input '{value.hint}' of {method} is missing", fix=nearest(value.hint, inputs))
    interpreter = _Interpreter(weights, dtype, record)
    output = interpreter.function(function, graph, [np.asarray(inputs[value.hint]) for value in function.inputs])
    return output, interpreter.updated


class _Interpreter:
    def __init__(self, weights: Mapping[str, Array], dtype: type[np.floating[Any]], record: Record | None) -> None:
        self.weights, self.dtype, self.record = weights, dtype, record
        self.updated: dict[str, Array] = {}
        self.types = {"float": dtype, "float32": np.float32, "int32": np.int32, "bool": np.bool_}

    def function(self, function: Function, owner: ModuleGraph | None, inputs: list[Array]) -> Any:
        known = {value: self.typed(array, value.dtype) for value, array in zip(function.inputs, inputs, strict=True)}

        def resolve(item: Value | Size) -> Any:
            if isinstance(item, Size):
                return size_value(item, lambda value: resolve(value).shape)
            if isinstance(item, ParamRef):
                return self.weight(owner, item.name)
            return known[item]

        for node in function.nodes:
            args, attrs = substitute(node.args, resolve), substitute(dict(node.attrs), resolve)
            results = self.call(node, owner, args) if node.call else [self.op(node, args, attrs)]
            known.update(zip(node.outs, results, strict=True))
        for name, value in function.updates.items():
            self.updated[_name(owner, name)] = resolve(value)
        return substitute(function.output, resolve)

    def call(self, node: Node, owner: ModuleGraph | None, args: list[Array]) -> list[Array]:
        assert node.call is not None
        target = owner if node.call.kind == "method" else None
        if node.call.kind == "child" and owner is not None:
            target = owner.children[node.call.name]
        output = self.function(node.call.function, target, args)
        if self.record is not None and node.call.kind == "child" and target is not None:
            self.record(target.path, output)
        return _arrays(output)

    def op(self, node: Node, args: Any, attrs: dict[str, Any]) -> Array:
        return self.typed(OPS[node.op].reference(*args, **attrs), node.outs[0].dtype)

    def typed(self, array: Any, dtype: str) -> Array:
        return np.asarray(array).astype(self.types[dtype], copy=False)

    def weight(self, owner: ModuleGraph | None, name: str) -> Array:
        full = _name(owner, name)
        return self.typed(self.updated.get(full, self.weights[full]), "float")


def _name(owner: ModuleGraph | None, name: str) -> str:
    return f"{owner.path if owner else ''}.{name}".lstrip(".")


def _arrays(output: Any) -> list[Array]:
    if isinstance(output, np.ndarray):
        return [output]
    return [array for item in (output.values() if isinstance(output, dict) else output) for array in _arrays(item)]
