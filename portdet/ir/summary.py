"""What a model costs, from its graph alone: parameters, shapes, arithmetic, memory."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from portdet.errors import PortdetError
from portdet.ir.graph import Function, ModuleGraph, Node, Value, leaves
from portdet.ops.conv import conv2d_macs
from portdet.ops.table import type_of

_VIEWS = ("reshape", "permute", "getitem", "broadcast_to", "stop_gradient")


@dataclass(frozen=True)
class Row:
    """One module and all below it. `shapes`: of its outputs, in its last call."""

    path: str
    class_name: str
    parameters: int
    tensors: int
    shapes: tuple[tuple[int, ...], ...]
    flops: int
    activation_bytes: int

    @property
    def depth(self) -> int:
        """0 for the model itself."""
        return self.path.count(".") + 1 if self.path else 0


def summary(graph: ModuleGraph, *, method: str = "predict", training: bool = False, dtype_bytes: int = 4) -> list[Row]:
    """A row for each module, the model first, at the sizes of the trace.

    parameters counts trained elements; tensors counts weights and buffers. flops is 2 x multiply-accumulates of
    convolutions and matrix products, the papers' count. activation_bytes is what the method computes and a backward
    pass may need: each op's output outside leaf layers and each leaf layer's output, views not counted, at
    `dtype_bytes` an element.
    """
    if (method, training) not in graph.methods:
        raise PortdetError(f"no method '{method}' with training={training} in this graph", where=graph.where)
    counter = _Counter()
    counter.function(graph.methods[method, training], graph, [""])
    rows = []
    for module in graph.walk():
        weights = module.weights().values()
        trained = sum(math.prod(info.shape) for info in weights if info.trainable)
        flops, elements = 2 * counter.macs[module.path], counter.elements[module.path]
        shapes = counter.shapes.get(module.path, ())
        rows.append(Row(module.path, module.class_name, trained, len(weights), shapes, flops, elements * dtype_bytes))
    return rows


class _Counter:
    """Follows every call from one method; adds to all modules that are open."""

    def __init__(self) -> None:
        self.macs: dict[str, int] = defaultdict(int)
        self.elements: dict[str, int] = defaultdict(int)
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def function(self, function: Function, owner: ModuleGraph | None, open_paths: Sequence[str]) -> None:
        for node in function.nodes:
            if node.call is None:
                self.add(node, open_paths, leaf=owner is not None and owner.leaf)
                continue
            target = owner if node.call.kind == "method" else None
            paths = open_paths
            if node.call.kind == "child" and owner is not None:
                target = owner.children[node.call.name]
                paths = [*open_paths, target.path]
                if target.leaf:
                    self.keep(node.outs, paths)
            self.function(node.call.function, target, paths)
        if owner is not None:
            self.shapes[owner.path] = _shapes(function)

    def add(self, node: Node, paths: Sequence[str], *, leaf: bool) -> None:
        macs = _macs(node)
        for path in paths:
            self.macs[path] += macs
        if not leaf and node.op not in _VIEWS:
            self.keep(node.outs, paths)

    def keep(self, values: Sequence[Value], paths: Sequence[str]) -> None:
        for path in paths:
            self.elements[path] += sum(math.prod(value.dims) for value in values)


def _shapes(function: Function) -> tuple[tuple[int, ...], ...]:
    return tuple(value.dims for value in leaves(function.output))


def _macs(node: Node) -> int:
    if node.op == "conv2d":
        return conv2d_macs(type_of(node.args[1]), type_of(node.outs[0]), node.attrs.get("groups", 1))
    if node.op == "matmul":
        return math.prod(node.outs[0].dims) * int(node.args[0].dims[-1])
    return 0


def print_summary(rows: Sequence[Row], *, depth: int = 2, console: Console) -> None:
    """The rows down to a depth as a table, the whole model last. MB: activations."""
    total = rows[0]
    table = Table(title=f"{total.class_name}: {total.parameters:,} parameters, {total.tensors} tensors")
    for name in ("module", "class", "output", "parameters", "GFLOPs", "MB"):
        table.add_column(name, justify="right" if name in ("parameters", "GFLOPs", "MB") else "left", no_wrap=True)
    for row in [row for row in rows[1:] if row.depth <= depth]:
        table.add_row(*_cells(row))
    table.add_section()
    table.add_row(*_cells(total), style="bold")
    console.print(table)


def _cells(row: Row) -> tuple[str, ...]:
    name = "  " * (row.depth - 1) + row.path.rpartition(".")[2] if row.path else "total"
    shapes = "\n".join("x".join(map(str, shape)) for shape in row.shapes)
    numbers = f"{row.parameters:,}", f"{row.flops / 1e9:.2f}", f"{row.activation_bytes / 1e6:.1f}"
    return name, row.class_name, shapes, *numbers
