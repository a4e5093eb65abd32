"""Tracing: run a spec's method on Values and record what it does, one Function per method and module instance."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from portdet.ir.graph import Call, DType, Function, ModuleGraph, Node, ParamInfo, ParamRef, Size, Value
from portdet.ir.place import assigned_names, spec_error, spec_place

if TYPE_CHECKING:
    from portdet.spec.module import Module, Param


class Tracer:
    """Records one method. The innermost open tracer receives the ops."""

    stack: ClassVar[list[Tracer]] = []

    def __init__(self, module: Module | None) -> None:
        self.module = module
        self.nodes: list[Node] = []
        self.updates: dict[str, Value] = {}
        self.params: dict[str, ParamRef] = {}

    def add(
        self,
        op: str,
        args: tuple[Any, ...],
        attrs: Mapping[str, Any],
        types: Sequence[tuple[tuple[int, ...], DType]],
        call: Call | None = None,
    ) -> tuple[Value, ...]:
        """Record a node and return its output Values."""
        file, line = spec_place()
        where = f"{Path(file).name}:{line}"
        names = assigned_names(file).get(line, ())
        hints = names if len(names) == len(types) else (names[0] if len(names) == 1 else "",) * len(types)
        outs = tuple(Value(dims, dtype, where, hint) for (dims, dtype), hint in zip(types, hints, strict=True))
        self.nodes.append(Node(op, tuple(self.lift(a) for a in args), dict(attrs), outs, where, call))
        return outs

    def lift(self, arg: Any) -> Any:
        """A Param becomes a reference to it; other arguments stay."""
        from portdet.spec.module import Param

        if isinstance(arg, Param):
            return self.param(arg)
        if isinstance(arg, tuple | list):
            return tuple(self.lift(a) for a in arg)
        if isinstance(arg, Mapping):
            return {key: self.lift(value) for key, value in arg.items()}
        if isinstance(arg, np.ndarray):
            raise spec_error("a numpy array in a traced method", "use ops.constant for small tables, Param for weights")
        return arg

    def param(self, param: Param) -> ParamRef:
        """The reference to one of this module's own weights."""
        if self.module is None or param.name not in self.module.params or self.module.params[param.name] is not param:
            raise spec_error("a weight of another module", "call that module instead of reading its weight")
        if param.name not in self.params:
            self.params[param.name] = ParamRef(param.shape, "float", name=param.name)
        return self.params[param.name]


def tracing() -> bool:
    """Whether ops record instead of running."""
    return bool(Tracer.stack)


def _arguments(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], skip: int) -> dict[str, Any]:
    """Arguments by name. `skip` 1 leaves out self."""
    bound = inspect.signature(call).bind(*((None,) * skip), *args, **kwargs)
    bound.apply_defaults()
    return dict(list(bound.arguments.items())[skip:])


def trace_call(
    call: Callable[..., Any],
    name: str,
    module: Module | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    training: bool,
) -> tuple[Function, list[Any]]:
    """Trace one method or function on fresh Values; returns it and the tensor arguments, in its order.

    Tensor arguments (Values and Params) become inputs; all others are static and recorded in `config`.
    """
    from portdet.spec.module import Param

    given = _arguments(call, args, kwargs, skip=0 if module is None else 1)
    inputs: dict[str, Value] = {}
    passed: list[Any] = []
    static: dict[str, Any] = {}
    for key, value in given.items():
        if isinstance(value, Value | Param):
            dims = value.dims if isinstance(value, Value) else value.shape
            dtype: DType = value.dtype if isinstance(value, Value) else "float"
            inputs[key] = Value(dims, dtype, hint=key)
            passed.append(value)
        elif isinstance(value, Size):
            raise spec_error(f"argument '{key}' of {name} is a size", "pass the tensor and ask for its shape inside")
        else:
            static[key] = value
    code = call.__code__ if hasattr(call, "__code__") else inspect.unwrap(call).__code__
    where = f"{Path(code.co_filename).name}:{code.co_firstlineno}"
    tracer = Tracer(module)
    Tracer.stack.append(tracer)
    try:
        bound = {**inputs, **static}
        output = tracer.lift(call(**bound) if module is None else call(module, **bound))
    finally:
        Tracer.stack.pop()
    function = Function(
        name, tuple(inputs.values()), tuple(tracer.nodes), output, where, training, static, tracer.updates
    )
    return function, passed


def replay_output(output: Any, fresh: Sequence[Value]) -> Any:
    """The callee's output structure, filled with the caller's Values."""
    queue = list(fresh)

    def build(item: Any) -> Any:
        if isinstance(item, Value):
            return queue.pop(0)
        if isinstance(item, Mapping):
            return {key: build(value) for key, value in item.items()}
        return tuple(build(value) for value in item)

    return build(output)


def graph(module: Module, calls: Mapping[str, tuple[bool, Mapping[str, tuple[tuple[int, ...], DType]]]]) -> ModuleGraph:
    """Trace methods of a module into one graph.

    calls: method name -> (training, {argument: (shape, dtype)}).
    """
    recorded: dict[int, dict[tuple[str, bool], Function]] = {}
    module.name_children()
    for name, (training, inputs) in calls.items():
        module.set_training(training, recorded)
        values = {key: Value(shape, dtype, hint=key) for key, (shape, dtype) in inputs.items()}
        Tracer.stack.append(Tracer(None))
        try:
            method = inspect.unwrap(getattr(type(module), name))
            function, _ = trace_call(method, name, module, (), values, training)
        finally:
            Tracer.stack.pop()
        recorded.setdefault(id(module), {})[name, training] = function
    module.set_training(False, None)
    return _module_graph(module, recorded)


def _module_graph(module: Module, recorded: Mapping[int, dict[tuple[str, bool], Function]]) -> ModuleGraph:
    return ModuleGraph(
        class_name=type(module).__name__,
        path=module.path,
        config=dict(module.config),
        where=module.where(),
        leaf=module.leaf,
        params={name: ParamInfo(p.shape, p.trainable, p.init) for name, p in module.params.items()},
        children={name: _module_graph(child, recorded) for name, child in module.children.items()},
        methods=recorded.get(id(module), {}),
    )
