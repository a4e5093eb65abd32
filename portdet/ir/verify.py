"""What holds for every graph, checked after tracing and after each pass. The first breach names the spec's line."""

from __future__ import annotations

from typing import Any

from portdet.errors import PortdetError, nearest
from portdet.ir.graph import Function, ModuleGraph, Node, ParamRef, Size, Value
from portdet.ir.infer import node_types, size_value, values_in
from portdet.ir.text import print_function
from portdet.ops.table import Type, type_of


def verify(graph: ModuleGraph) -> None:
    """Check a module's graph and all below it.

    Values are made once and before they are used; types are what the ops' rules give; calls fit their callees, and
    a module called at several sizes does the same at each; weights and updated buffers are the module's own.
    Raises PortdetError.
    """
    checker = _Checker()
    for module in graph.walk():
        checker.module(module)


class _Checker:
    def __init__(self) -> None:
        self.seen: set[Function] = set()

    def module(self, module: ModuleGraph) -> None:
        for name, child in module.children.items():
            if child.path != (path := f"{module.path}.{name}".lstrip(".")):
                raise PortdetError(
                    f"module '{child.path}' is held as '{path}' too",
                    where=module.where,
                    fix="hold a shared module once and call it from the module that holds it",
                )
        for key, function in module.methods.items():
            if key != (function.name, function.training):
                raise PortdetError(f"method {key} is '{function.name}' ({function.training})", where=function.where)
            self.function(function, module)

    def function(self, function: Function, owner: ModuleGraph | None) -> None:
        """`owner` is the module whose method it is, None for a spec function."""
        if function in self.seen:
            return
        self.seen.add(function)
        known = set(function.inputs)
        for node in function.nodes:
            _used((node.args, dict(node.attrs)), known, owner, node.where)
            _sizes((node.args, dict(node.attrs)), node.where)
            _types(node)
            if node.call is not None:
                self.call(node, function, owner)
            for value in node.outs:
                if value in known:
                    raise PortdetError(f"value '{value.hint}' is made twice", where=node.where)
                known.add(value)
        _used((function.output, dict(function.updates)), known, owner, function.where)
        for name, value in function.updates.items():
            _update(name, value, function, owner)

    def call(self, node: Node, caller: Function, owner: ModuleGraph | None) -> None:
        assert node.call is not None
        callee = node.call.function
        expected, given = [type_of(value) for value in callee.inputs], [type_of(arg) for arg in node.args]
        if expected != given:
            raise PortdetError(f"{node.call.name} takes {_show(expected)}, given {_show(given)}", where=node.where)
        if node.call.kind == "function":
            self.function(callee, None)
            return
        if owner is None:
            raise PortdetError(f"spec function '{caller.name}' calls a module", where=node.where, fix="pass its result")
        target, method = (owner, node.call.name)
        if node.call.kind == "child":
            if node.call.name not in owner.children:
                fix = nearest(node.call.name, owner.children)
                raise PortdetError(f"{owner.class_name} has no child '{node.call.name}'", where=node.where, fix=fix)
            target, method = owner.children[node.call.name], "forward"
        recorded = target.methods.get((method, caller.training))
        if recorded is None:
            raise PortdetError(
                f"{target.class_name} '{target.path}' has no {method} for training={caller.training}", where=node.where
            )
        if callee is recorded:
            return
        if print_function(callee, shapes=False) != print_function(recorded, shapes=False):
            raise PortdetError(
                f"'{target.path}' does not do the same in its second call as in its first",
                where=node.where,
                fix="decide from constructor arguments, not from sizes or state",
            )
        self.function(callee, target)


def _used(items: Any, known: set[Value], owner: ModuleGraph | None, where: str) -> None:
    for value in values_in(items):
        if isinstance(value, ParamRef):
            info = owner.params.get(value.name) if owner else None
            if info is None:
                name = owner.class_name if owner else "a spec function"
                raise PortdetError(f"'{value.name}' is not a weight of {name}", where=where)
            if info.shape != value.dims:
                raise PortdetError(f"'{value.name}' is {info.shape}, read as {value.dims}", where=where)
        elif value not in known:
            raise PortdetError(f"value '{value.hint}' (made at {value.where}) is used before it is made", where=where)


def _sizes(item: Any, where: str) -> None:
    if isinstance(item, Size):
        now = size_value(item, lambda value: value.dims)
        if now != item.value:
            raise PortdetError(f"size is {now}, recorded as {item.value}", where=where)
    elif isinstance(item, tuple | list | dict):
        for part in item.values() if isinstance(item, dict) else item:
            _sizes(part, where)


def _types(node: Node) -> None:
    expected, made = node_types(node), [type_of(value) for value in node.outs]
    if expected != made:
        raise PortdetError(f"{node.op} gives {_show(expected)}, recorded as {_show(made)}", where=node.where)


def _update(name: str, value: Value, function: Function, owner: ModuleGraph | None) -> None:
    info = owner.params.get(name) if owner else None
    if info is None or info.trainable:
        kind = "a trained weight" if info else "no buffer here"
        raise PortdetError(f"update of '{name}', which is {kind}", where=function.where, fix="update buffers only")
    if info.shape != value.dims:
        raise PortdetError(f"update of '{name}' {info.shape} with {value.dims}", where=function.where)


def _show(types: list[Type]) -> str:
    return ", ".join("None" if t is None else f"{t[1]}{list(t[0])}" for t in types)
