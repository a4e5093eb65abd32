"""Spec modules: a detector's layers as plain Python. Outside a trace they run at once in numpy float64."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from portdet.errors import PortdetError, nearest
from portdet.ir.graph import Call, Function, Tensor, leaves
from portdet.ir.place import spec_error
from portdet.ir.trace import Tracer, replay_output, trace_call, tracing

F = TypeVar("F", bound=Callable[..., Any])


class Param(Tensor):
    """A weight (trained) or buffer (not). `init` names how it starts; see `portdet.spec.init`."""

    def __init__(self, shape: tuple[int, ...], init: str, *, trainable: bool = True) -> None:
        self.shape, self.init, self.trainable = shape, init, trainable
        self.name = ""
        self._array: NDArray[np.float64] | None = None

    @property
    def array(self) -> NDArray[np.float64]:
        """The value, for running outside a trace."""
        if self._array is None:
            raise PortdetError(f"weight '{self.name}' has no value", fix="call load(module, weights) first")
        return self._array

    @array.setter
    def array(self, value: NDArray[Any]) -> None:
        if value.shape != self.shape:
            raise PortdetError(f"weight '{self.name}' is {self.shape}, given {value.shape}")
        self._array = value.astype(np.float64)


class Module:
    """A part of a detector. Constructor arguments are recorded: generated classes take the same ones.

    Children are modules held as attributes. A `leaf` lowers to the framework's own layer of that name.
    """

    leaf: ClassVar[bool] = False
    config: Mapping[str, Any] = MappingProxyType({})
    training: bool = False
    path: str = ""
    _recorded: dict[int, dict[tuple[str, bool], Function]] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _recording(cls.__init__)  # type: ignore[method-assign]

    @property
    def children(self) -> dict[str, Module]:
        """Child modules by attribute name, in the order of their assignment."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Module)}

    @property
    def params(self) -> dict[str, Param]:
        """This module's own weights and buffers by attribute name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Param)}

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Param):
            value.name = name
        super().__setattr__(name, value)

    def name_children(self, path: str = "") -> None:
        """Give every module below its path: the prefix of its weights' canonical names."""
        self.path = path
        for name, child in self.children.items():
            child.name_children(f"{path}.{name}".lstrip("."))

    def set_training(self, training: bool, recorded: Any = None) -> None:
        """Training or evaluation mode, here and below. `recorded` is where a trace collects functions."""
        self.training, self._recorded = training, recorded
        for child in self.children.values():
            child.set_training(training, recorded)

    def where(self) -> str:
        """File and line of the class."""
        lines = inspect.getsourcelines(type(self))[1]
        return f"{Path(inspect.getsourcefile(type(self)) or '?').name}:{lines}"

    def __call__(self, *args: Any) -> Any:
        if not tracing():
            return self.forward(*args)
        caller = Tracer.stack[-1].module
        name = next((n for n, child in (caller.children if caller else {}).items() if child is self), None)
        if name is None:
            raise spec_error(f"call of a {type(self).__name__} that is not a child", "hold it as an attribute of self")
        return _record(self, type(self).forward, "forward", "child", name, args, {})

    def forward(self, *args: Any) -> Any:
        raise spec_error(f"{type(self).__name__} has no forward", "define forward(self, ...)")

    def items(self) -> Iterator[tuple[str, Param]]:
        """Every weight and buffer below by canonical name, in the spec's order."""
        self.name_children(self.path)
        stack = [self]
        while stack:
            module = stack.pop()
            yield from ((f"{module.path}.{name}".lstrip("."), p) for name, p in module.params.items())
            stack.extend(reversed(module.children.values()))


def _recording(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapped(self: Module, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        if "config" not in vars(self):  # the outermost class's arguments, not a base's
            values = list(bound.arguments.items())[1:]
            self.config = {k: v for k, v in values if isinstance(v, int | float | str | bool | tuple)}
        init(self, *args, **kwargs)

    return wrapped


def _record(
    owner: Module | None,
    call: Callable[..., Any],
    method: str,
    kind: Any,
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Trace a callee and record a call node in the open trace."""
    caller = Tracer.stack[-1]
    training = owner.training if owner else False  # a function has no mode
    function, passed = trace_call(call, method, owner, args, kwargs, training)
    if owner is not None and owner._recorded is not None:
        owner._recorded.setdefault(id(owner), {}).setdefault((method, training), function)
    types = [(value.dims, value.dtype) for value in leaves(function.output)]
    outs = caller.add("call", tuple(passed), {}, types, Call(kind, name, function))
    return replay_output(function.output, outs)


def method(call: F) -> F:
    """A method of a module that stays a method in generated code, instead of being written out where it is called."""

    @functools.wraps(call)
    def wrapped(self: Module, *args: Any, **kwargs: Any) -> Any:
        if not tracing() or Tracer.stack[-1].module is not self:
            return call(self, *args, **kwargs)
        return _record(self, call, call.__name__, "method", call.__name__, args, kwargs)

    return wrapped  # type: ignore[return-value]


def function(call: F) -> F:
    """A spec function that stays a function in generated code. Arguments that are no tensors are static."""

    @functools.wraps(call)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not tracing():
            return call(*args, **kwargs)
        return _record(None, call, call.__name__, "function", call.__name__, args, kwargs)

    return wrapped  # type: ignore[return-value]


def update(module: Module, name: str, value: Any) -> None:
    """Set a buffer at the end of the step: recorded in a trace, done at once outside."""
    if tracing():
        Tracer.stack[-1].updates[name] = Tracer.stack[-1].lift(value)
    else:
        module.params[name].array = value


class Sequential(Module):
    """Modules one after another; lowers to the framework's own Sequential. Paths are '0', '1', ..."""

    def __init__(self, modules: list[Module]) -> None:
        for i, module in enumerate(modules):
            setattr(self, str(i), module)

    def forward(self, x: Any) -> Any:
        for child in self.children.values():
            x = child(x)
        return x


def load(module: Module, weights: Mapping[str, NDArray[Any]]) -> None:
    """Give every weight and buffer its value, by canonical name; missing and unknown names are errors."""
    params = dict(module.items())
    if missing := [name for name in params if name not in weights]:
        raise PortdetError(f"{len(missing)} weights missing, first '{missing[0]}'", fix=nearest(missing[0], weights))
    if unknown := [name for name in weights if name not in params]:
        raise PortdetError(f"{len(unknown)} unknown weights, first '{unknown[0]}'", fix=nearest(unknown[0], params))
    for name, param in params.items():
        param.array = weights[name]
