"""Planting a fault in a detector's graph: a pass from graph to graph, so that every backend lowers the faulty one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from portdet.ir.graph import Function, ModuleGraph, Node, Size, Value
from portdet.ir.infer import substitute
from portdet.ir.trace import Tracer


@dataclass(frozen=True, eq=False)
class Site:
    """Where a node is: the path of its module, and the method or spec function that it is a line of."""

    module: str
    function: Function

    @property
    def method(self) -> str:
        return self.function.name


Pick = Callable[[Site, Node], bool]
Make = Callable[[Node], Any]


def edited(graph: ModuleGraph, pick: Pick, make: Make, *, once: bool = False) -> tuple[ModuleGraph, list[Site]]:
    """The graph with every picked node replaced, and where they were, in the order of execution.

    make: gets the node and returns what stands in the place of its output, in the language of a spec (`again(node)`
    gives the outputs of the node itself). once: the first node of the first method alone, in training and evaluation.
    The insides of leaf layers are not looked at: their constructor arguments say what they are (`configured`).
    """
    pass_ = _Pass(graph, pick, make, once)
    return pass_.module(graph), pass_.sites


def configured(graph: ModuleGraph, change: Callable[[ModuleGraph], Mapping[str, Any]]) -> ModuleGraph:
    """The graph with other constructor arguments, from which leaf layers are lowered; {} leaves a module as it is."""
    children = {name: configured(child, change) for name, child in graph.children.items()}
    return replace(graph, config={**graph.config, **change(graph)}, children=children)


def again(node: Node, *args: Any, **attrs: Any) -> Any:
    """The node once more, with other arguments or attributes if given: its output, or a tuple of them."""
    outs = tuple(replace(value) for value in node.outs)
    fresh = replace(node, args=args or node.args, attrs={**node.attrs, **attrs}, outs=outs)
    Tracer.stack[-1].nodes.append(fresh)
    return outs[0] if len(outs) == 1 else outs


def of_class(graph: ModuleGraph, class_name: str) -> list[ModuleGraph]:
    """Modules of a class, in the spec's order."""
    return [module for module in graph.walk() if module.class_name == class_name]


def below(graph: ModuleGraph, path: str) -> ModuleGraph:
    """The module of that path."""
    return next(module for module in graph.walk() if module.path == path)


def entry(module: ModuleGraph) -> str:
    """Path of the first leaf layer that runs in a module: what shows first that its input is another."""
    while not module.leaf:
        if module.class_name == "Sequential":
            name = next(iter(module.children))
        else:
            name = next(iter(_children_called(module)))
        module = module.children[name]
    return module.path


def after(graph: ModuleGraph, site: Site, node: Node) -> str:
    """Path of the first leaf layer that runs in the first child that is called after `node`."""
    later = site.function.nodes[_position(site.function, node) + 1 :]
    name = next(n.call.name for n in later if n.call is not None and n.call.kind == "child")
    return entry(below(graph, site.module).children[name])


def before(site: Site, node: Node) -> str:
    """Path of the last child that is called before `node`."""
    earlier = site.function.nodes[: _position(site.function, node)]
    name = next(n.call.name for n in reversed(earlier) if n.call is not None and n.call.kind == "child")
    return f"{site.module}.{name}".lstrip(".")


def found(graph: ModuleGraph, pick: Pick) -> list[tuple[Site, Node]]:
    """Every node that is picked, in the order of execution."""
    nodes: list[tuple[Site, Node]] = []

    def noted(site: Site, node: Node) -> bool:
        if pick(site, node):
            nodes.append((site, node))
        return False

    edited(graph, noted, again)
    return nodes


def _position(function: Function, node: Node) -> int:
    return next(place for place, other in enumerate(function.nodes) if other.outs == node.outs)


def _children_called(module: ModuleGraph) -> Iterator[str]:
    function = next(function for (name, _), function in module.methods.items() if name == "forward")
    return (node.call.name for node in function.nodes if node.call is not None and node.call.kind == "child")


class _Pass:
    """Rewrites every Function once, callees before what follows their call."""

    def __init__(self, graph: ModuleGraph, pick: Pick, make: Make, once: bool) -> None:
        self.pick, self.make, self.once = pick, make, once
        self.leaves = {module.path for module in graph.walk() if module.leaf}
        self.done: dict[Function, Function] = {}
        self.sites: list[Site] = []

    def module(self, module: ModuleGraph) -> ModuleGraph:
        methods = {key: self.function(function, module.path) for key, function in module.methods.items()}
        children = {name: self.module(child) for name, child in module.children.items()}
        return replace(module, methods=methods, children=children)

    def function(self, function: Function, path: str) -> Function:
        if path in self.leaves:
            return function
        if function not in self.done:
            self.done[function] = self._rewritten(function, path)
        return self.done[function]

    def _rewritten(self, function: Function, path: str) -> Function:
        new: dict[Value, Value] = {}

        def leaf(item: Value | Size) -> Any:
            if isinstance(item, Value):
                return new.get(item, item)
            return Size(item.kind, substitute(item.args, leaf), item.value)

        site, nodes = Site(path, function), []
        for node in function.nodes:
            call = node.call
            if call is not None:
                owner = f"{path}.{call.name}".lstrip(".") if call.kind == "child" else path
                call = replace(call, function=self.function(call.function, owner))
            args, attrs = substitute(node.args, leaf), substitute(dict(node.attrs), leaf)
            fresh = replace(node, args=args, attrs=attrs, call=call)
            if self._picked(site, node):
                tracer = Tracer(None)
                Tracer.stack.append(tracer)
                try:
                    made = self.make(fresh)
                finally:
                    Tracer.stack.pop()
                nodes += tracer.nodes
                new.update(zip(node.outs, made if isinstance(made, tuple) else (made,), strict=True))
            else:
                nodes.append(fresh)
        output, updates = substitute(function.output, leaf), substitute(dict(function.updates), leaf)
        return replace(function, nodes=tuple(nodes), output=output, updates=updates)

    def _picked(self, site: Site, node: Node) -> bool:
        if self.once and self.sites:
            first = self.sites[0]
            done = any(site.function is other.function for other in self.sites)
            if done or (site.module, site.method) != (first.module, first.method):
                return False
        if not self.pick(site, node):
            return False
        self.sites.append(site)
        return True
