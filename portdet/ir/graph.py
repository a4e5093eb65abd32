"""The typed graph: a tree of modules, each with its traced methods. Nothing here is changed after it is made.

Shapes are those of the trace (a hint); no op's text holds one. Where a spec asks for a size (`x.shape[2]`) the graph
keeps the question (`Size`), so the generated source depends on neither batch nor image size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from portdet.ir.place import spec_error

DType = Literal["float", "float32", "int32", "bool"]
"""'float' is the working precision (float64 in the reference, float32 on devices); 'float32' is exactly that."""


class Tensor:
    """Arithmetic that `Value` (in a trace) and `Param` share. The operators are the ops of `portdet.ops`."""

    ops: ClassVar[dict[str, Callable[..., Any]]] = {}  # filled by portdet.ops.table

    def __add__(self, other: Any) -> Any:
        return self.ops["add"](self, other)

    def __radd__(self, other: Any) -> Any:
        return self.ops["add"](other, self)

    def __sub__(self, other: Any) -> Any:
        return self.ops["sub"](self, other)

    def __rsub__(self, other: Any) -> Any:
        return self.ops["sub"](other, self)

    def __mul__(self, other: Any) -> Any:
        return self.ops["mul"](self, other)

    def __rmul__(self, other: Any) -> Any:
        return self.ops["mul"](other, self)

    def __truediv__(self, other: Any) -> Any:
        return self.ops["div"](self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self.ops["div"](other, self)

    def __lt__(self, other: Any) -> Any:
        return self.ops["less"](self, other)

    def __gt__(self, other: Any) -> Any:
        return self.ops["greater"](self, other)

    def __neg__(self) -> Any:
        return self.ops["neg"](self)

    def __getitem__(self, index: Any) -> Any:
        return self.ops["getitem"](self, index=index if isinstance(index, tuple) else (index,))


@dataclass(frozen=True, eq=False)
class Value(Tensor):
    """A tensor in a trace. `hint` is the name that the spec gave it, if any."""

    dims: tuple[int, ...]
    dtype: DType
    where: str = ""
    hint: str = ""

    @property
    def shape(self) -> tuple[Size, ...]:
        return tuple(Size("dim", (self, axis), dim) for axis, dim in enumerate(self.dims))

    def _refuse(self, what: str) -> Any:
        raise spec_error(
            f"{what} needs the value of a traced tensor",
            "a detector has static control flow: use ops.where, or decide from constructor arguments",
        )

    def __bool__(self) -> bool:
        return bool(self._refuse("bool()"))

    def __len__(self) -> int:
        return int(self._refuse("len()"))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._refuse("iteration"))


@dataclass(frozen=True, eq=False)
class ParamRef(Value):
    """A weight or buffer of the module whose method is traced."""

    name: str = ""


@dataclass(frozen=True, eq=False)
class Size:
    """A symbolic size: `x.shape[2]`, or arithmetic on sizes and ints. `value` is its number in this trace."""

    kind: Literal["dim", "+", "-", "*", "//"]
    args: tuple[Any, ...]
    value: int

    def _make(self, op: Any, left: Any, right: Any) -> Size:
        numbers = [x.value if isinstance(x, Size) else x for x in (left, right)]
        if not all(isinstance(n, int) for n in numbers):
            raise spec_error(f"size {op} {right!r}", "sizes combine with ints and sizes only")
        result = {
            "+": numbers[0] + numbers[1],
            "-": numbers[0] - numbers[1],
            "*": numbers[0] * numbers[1],
            "//": numbers[0] // numbers[1] if op == "//" else 0,
        }[op]
        return Size(op, (left, right), result)

    def __add__(self, other: Any) -> Size:
        return self._make("+", self, other)

    def __radd__(self, other: Any) -> Size:
        return self._make("+", other, self)

    def __sub__(self, other: Any) -> Size:
        return self._make("-", self, other)

    def __mul__(self, other: Any) -> Any:
        return NotImplemented if isinstance(other, Tensor) else self._make("*", self, other)

    def __rmul__(self, other: Any) -> Size:
        return self._make("*", other, self)

    def __floordiv__(self, other: Any) -> Size:
        return self._make("//", self, other)

    def __bool__(self) -> bool:
        raise spec_error("a size used as a condition", "source must not depend on the input size")

    def __index__(self) -> int:
        raise spec_error(
            f"size {self.value} used as a plain int", "source must not depend on the input size; pass it to an op"
        )


@dataclass(frozen=True, eq=False)
class Call:
    """What a call node calls: a child module, another method of the same module, or a spec function."""

    kind: Literal["child", "method", "function"]
    name: str  # child path ('conv1', 'layer1.0'), method name or function name
    function: Function


@dataclass(frozen=True, eq=False)
class Node:
    """One op or call. `args` hold Values, Sizes, numbers, None, or (concat) tuples of Values."""

    op: str
    args: tuple[Any, ...]
    attrs: Mapping[str, Any]
    outs: tuple[Value, ...]
    where: str
    call: Call | None = None


Output: TypeAlias = Any
"""A Value, or a tuple or dict of outputs."""


@dataclass(frozen=True, eq=False)
class Function:
    """A traced method or function. `config` holds its static arguments; `updates` the new values of buffers."""

    name: str
    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    output: Output
    where: str
    training: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    updates: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class ParamInfo:
    """A weight or buffer: shape, whether it is trained, how it starts (`init` reads it)."""

    shape: tuple[int, ...]
    trainable: bool
    init: str


@dataclass(frozen=True, eq=False)
class ModuleGraph:
    """A module instance: its class, constructor arguments, weights, children, and the methods that were traced.

    `methods` is keyed by (name, training). A leaf lowers to the framework's own layer.
    """

    class_name: str
    path: str
    config: Mapping[str, Any]
    where: str
    leaf: bool
    params: Mapping[str, ParamInfo]
    children: Mapping[str, ModuleGraph]
    methods: Mapping[tuple[str, bool], Function]

    def walk(self) -> Iterator[ModuleGraph]:
        """This module and all below it, depth first, in the spec's order."""
        yield self
        for child in self.children.values():
            yield from child.walk()

    def weights(self) -> dict[str, ParamInfo]:
        """Every weight and buffer below, by canonical name (its path), in the spec's order."""
        return {
            f"{module.path}.{name}".lstrip("."): info for module in self.walk() for name, info in module.params.items()
        }


def leaves(structure: Output) -> list[Value]:
    """The Values of an output, in order."""
    if isinstance(structure, Value):
        return [structure]
    items = structure.values() if isinstance(structure, Mapping) else structure
    return [value for item in items for value in leaves(item)]
