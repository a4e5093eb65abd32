"""The printed form of a graph: one section a module, one indented block a method; spec functions at the end.

    module backbone.conv1.conv: Conv2d(cin=4, cout=8, kernel=3), leaf  # layers.py:15
      weight = param(8, 4, 3, 3, init='conv')
      def forward(x: float[2, 4, 96, 96]), training  # layers.py:30
        _0 = conv2d(x, self.weight, None, stride=2, pads=(0, 1, 0, 1)) -> float[2, 8, 48, 48]  # layers.py:31
        return _0

Values keep the names that the spec gave them: `y`, then `y__1`; `_0` has none. `self.running_mean = y` is an update.
`portdet.ir.parse` reads it back, and printing that gives the same text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from portdet.errors import PortdetError
from portdet.ir.graph import Function, ModuleGraph, Node, ParamInfo, ParamRef, Size, Value

_RANK = {"+": 1, "-": 1, "*": 2, "//": 2, "dim": 3}


def print_graph(graph: ModuleGraph) -> str:
    """The whole graph as text. Raises PortdetError for an attribute that is neither number, text nor tuple."""
    writer = _Writer()
    modules = [writer.module(module) for module in graph.walk()]
    return "\n\n".join("\n".join(lines) for lines in [*modules, *writer.sections]) + "\n"


def print_function(function: Function, *, shapes: bool = True) -> str:
    """One Function and the spec functions that it calls. `shapes=False` leaves the types out: equal texts are one
    method at several sizes."""
    writer = _Writer(shapes)
    own = writer.function(function, "def " + function.name)
    return "\n\n".join("\n".join(lines) for lines in [own, *writer.sections]) + "\n"


class _Writer:
    """Collects the spec functions that the printed methods call, each distinct text once."""

    def __init__(self, shapes: bool = True) -> None:
        self.shapes = shapes
        self.sections: list[list[str]] = []
        self.labels: dict[tuple[str, str], str] = {}

    def module(self, module: ModuleGraph) -> list[str]:
        leaf = ", leaf" if module.leaf else ""
        lines = [
            f"module {module.path or '.'}: {module.class_name}({_keywords(module.config)}){leaf}  # {module.where}"
        ]
        lines += [f"  {name} = {_param(info)}" for name, info in module.params.items()]
        for function in module.methods.values():
            lines += ["  " + line for line in self.function(function, "def " + function.name)]
        return lines

    def function(self, function: Function, heading: str) -> list[str]:
        """Heading `def name` or `function label`, then the body, indented by two."""
        names = _Names()
        inputs = [f"{names.add(value)}{': ' + _type(value) if self.shapes else ''}" for value in function.inputs]
        static = ["*", _keywords(function.config)] if function.config else []
        mode = ", training" if function.training else ""
        lines = [f"{heading}({', '.join([*inputs, *static])}){mode}  # {function.where}"]
        lines += ["  " + self.node(node, names) for node in function.nodes]
        lines += [f"  self.{name} = {names.text(value)}" for name, value in function.updates.items()]
        return [*lines, f"  return {names.text(function.output)}"]

    def node(self, node: Node, names: _Names) -> str:
        right = self._right(node, names)
        left = ", ".join(names.add(value) for value in node.outs)
        types = " -> " + ", ".join(_type(value) for value in node.outs) if self.shapes else ""
        return f"{left} = {right}{types}  # {node.where}"

    def _right(self, node: Node, names: _Names) -> str:
        if node.op == "getitem" and len(node.args) == 1:
            return f"{names.text(node.args[0])}[{', '.join(_index(part) for part in node.attrs['index'])}]"
        args = [names.text(arg) for arg in node.args]
        args += [f"{name}={names.text(value)}" for name, value in node.attrs.items()]
        return f"{self._callee(node)}({', '.join(args)})"

    def _callee(self, node: Node) -> str:
        if node.call is None:
            return node.op
        if node.call.kind == "function":
            return "function." + self.label(node.call.function)
        return f"self.{node.call.name}" if node.call.name.isidentifier() else f"self[{node.call.name!r}]"

    def label(self, function: Function) -> str:
        """The function's name here: its own, numbered where several texts share it."""
        lines = self.function(function, "function")
        key = function.name, "\n".join(lines)
        if key not in self.labels:
            same = sum(name == function.name for name, _ in self.labels)
            self.labels[key] = f"{function.name}__{same}" if same else function.name
            lines[0] = lines[0].replace("function(", f"function {self.labels[key]}(", 1)
            self.sections.append(lines)
        return self.labels[key]


class _Names:
    """Names of one Function's values."""

    def __init__(self) -> None:
        self.known: dict[Value, str] = {}
        self.used: dict[str, int] = {}

    def add(self, value: Value) -> str:
        number = self.used.get(value.hint, 0)
        self.used[value.hint] = number + 1
        name = f"{value.hint}__{number}" if value.hint and number else value.hint or f"_{number}"
        if name in self.known.values():
            raise PortdetError(
                f"two values named '{name}'", where=value.where, fix="end no name with two underscores and digits"
            )
        self.known[value] = name
        return name

    def text(self, item: Any) -> str:
        """A value, size, number, text, tuple or dict as the expression that `parse_graph` reads."""
        if isinstance(item, ParamRef):
            return f"self.{item.name}"
        if isinstance(item, Value):
            if item not in self.known:
                raise PortdetError(f"value '{item.hint}' is used before it is made", where=item.where)
            return self.known[item]
        if isinstance(item, Size):
            return self.size(item)
        if isinstance(item, tuple | list):
            return f"({', '.join(self.text(part) for part in item)}{',' if len(item) == 1 else ''})"
        if isinstance(item, Mapping):
            return "{" + ", ".join(f"{key!r}: {self.text(part)}" for key, part in item.items()) + "}"
        return _literal(item)

    def size(self, size: Size) -> str:
        if size.kind == "dim":
            value, axis = size.args
            return f"{self.text(value)}.shape[{axis}]"
        left, right = size.args
        # the right side needs brackets at equal rank too: a - (b - c), a // (b * c)
        low = isinstance(left, Size) and _RANK[left.kind] < _RANK[size.kind]
        high = isinstance(right, Size) and _RANK[right.kind] <= _RANK[size.kind]
        return " ".join([_bracket(self.text(left), low), size.kind, _bracket(self.text(right), high)])


def _bracket(text: str, needed: bool) -> str:
    return f"({text})" if needed else text


def _literal(item: Any) -> str:
    if isinstance(item, np.generic):
        item = item.item()
    if isinstance(item, float) and not math.isfinite(item):
        return f"float('{item}')"
    if item is None or isinstance(item, bool | int | float | str):
        return repr(item)
    raise PortdetError(
        f"{type(item).__name__} {item!r} in a graph", fix="numbers, text, tuples and None have a text form"
    )


def _index(part: Any) -> str:
    if part is Ellipsis:
        return "..."
    if isinstance(part, slice):
        return ":".join("" if bound is None else repr(bound) for bound in (part.start, part.stop))
    return repr(part)


def _keywords(config: Mapping[str, Any]) -> str:
    names = _Names()
    return ", ".join(f"{name}={names.text(value)}" for name, value in config.items())


def _type(value: Value) -> str:
    return value.dtype + (f"[{', '.join(map(str, value.dims))}]" if value.dims else "")


def _param(info: ParamInfo) -> str:
    shape = "".join(f"{dim}, " for dim in info.shape)
    return f"{'param' if info.trainable else 'buffer'}({shape}init={info.init!r})"
