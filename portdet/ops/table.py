"""The op table. One definition per op: numpy reference, type rule, samples; each backend adds one line of text.

Called on Values an op records a node; called on arrays it runs its reference at once, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portdet.ir.graph import DType, Size, Tensor, Value
from portdet.ir.place import spec_error

Type = tuple[tuple[int, ...], DType]
"""Shape and dtype of a tensor in a trace."""


@dataclass(frozen=True)
class Sample:
    """Inputs that exercise an op: shapes (or arrays) and attributes. `lo`, `hi` bound the drawn values."""

    args: tuple[Any, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    lo: float = -2.0
    hi: float = 2.0


@dataclass(frozen=True)
class Op:
    """One op: its numpy reference and `infer`, the rule that gives its output type from input types."""

    name: str
    reference: Callable[..., Any]
    infer: Callable[..., Type]
    samples: Sequence[Sample]
    tolerance: float = 2e-6
    smooth: bool = True  # False: no gradient is defined (comparisons, floor, argmax)

    def __call__(self, *args: Any, **attrs: Any) -> Any:
        from portdet.ir.trace import Tracer

        if Tracer.stack:
            types = [type_of(Tracer.stack[-1].lift(arg)) for arg in args]
            try:
                made = self.infer(*types, **attrs)
            except (ValueError, IndexError, TypeError) as error:
                raise spec_error(f"{self.name} of {types}: {error}", "check the arguments' shapes") from None
            return Tracer.stack[-1].add(self.name, args, attrs, [made])[0]
        return self.reference(*(plain(arg) for arg in args), **attrs)


OPS: dict[str, Op] = {}


def type_of(arg: Any) -> Any:
    """The type of an argument: (shape, dtype) of a Value, of each in a tuple; numbers are 0-d floats."""
    if isinstance(arg, Value):
        return arg.dims, arg.dtype
    if isinstance(arg, tuple | list):
        return [type_of(a) for a in arg]
    return None if arg is None else ((), "number")


def plain(arg: Any) -> Any:
    """The array of a Param, the number of a Size; other arguments as they are."""
    if isinstance(arg, Tensor):
        return arg.array  # type: ignore[attr-defined]
    if isinstance(arg, tuple | list):
        return tuple(plain(a) for a in arg)
    return arg


def register(
    reference: Callable[..., Any],
    infer: Callable[..., Type],
    samples: Sequence[Sample],
    *,
    tolerance: float = 2e-6,
    smooth: bool = True,
) -> Op:
    """Add an op under its reference's name."""
    name = reference.__name__.strip("_")
    op = Op(name, reference, infer, tuple(samples), tolerance, smooth)
    OPS[name] = op
    Tensor.ops[name] = op
    return op


def op(
    infer: Callable[..., Type], *samples: Sample, tolerance: float = 2e-6, smooth: bool = True
) -> Callable[[Callable[..., Any]], Op]:
    """Decorator form of `register`."""
    return lambda reference: register(reference, infer, samples, tolerance=tolerance, smooth=smooth)


def numbers(shape: Sequence[int | Size]) -> tuple[int, ...]:
    """A shape attribute as plain ints."""
    return tuple(d.value if isinstance(d, Size) else int(d) for d in shape)


def zeros(type_: Type) -> NDArray[Any]:
    """An array of that type without memory, to ask a reference for a shape."""
    kinds: dict[str, Any] = {"float": np.float64, "float32": np.float32, "int32": np.int32, "bool": np.bool_}
    return np.broadcast_to(kinds[type_[1]](0), type_[0])


def join(types: Sequence[Any]) -> DType:
    """The dtype of arithmetic on these: bool < int32 < float32 < float; plain numbers adapt."""
    order: list[DType] = ["bool", "int32", "float32", "float"]
    found = [order.index(t[1]) for t in types if t is not None and t[1] != "number"]
    return order[max(found)] if found else "float"


def broadcast(*types: Any, **_: Any) -> Type:
    """Type rule of elementwise arithmetic."""
    return np.broadcast_shapes(*(t[0] for t in types)), join(types)


def compared(*types: Any, **_: Any) -> Type:
    """Type rule of comparisons."""
    return np.broadcast_shapes(*(t[0] for t in types)), "bool"


def same(first: Type, *_: Any, **__: Any) -> Type:
    """Type rule of ops that keep the type of their first input."""
    return first
