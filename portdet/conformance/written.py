"""A spec that calls ops, written as a file, as a spec has to be; and its run, down to the call at fault."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from portdet.errors import PortdetError
from portdet.ir.graph import DType, ModuleGraph
from portdet.ir.trace import graph
from portdet.session import Array, Arrays, Source
from portdet.source import load


@dataclass(frozen=True)
class Part:
    """One call: `text` of the inputs' names in it, 'ops.tanh(a)', and the inputs by name, a to z."""

    name: str
    text: str
    inputs: Arrays
    setup: str = "pass"  # a statement of its constructor

    @property
    def given(self) -> Arrays:
        """The inputs as the whole spec names them."""
        return {f"{self.name}_{letter}": array for letter, array in self.inputs.items()}


def traced(parts: Sequence[Part], folder: Path) -> tuple[ModuleGraph, Arrays]:
    """Write the spec of these parts, import it and trace it; and its inputs. Each part's value has the part's name."""
    inputs = {name: array for part in parts for name, array in part.given.items()}
    lines = ["from portdet import ops", "from portdet.spec import BatchNorm2d, Module", ""]
    for part in parts:
        lines += [
            f"class {_class(part.name)}(Module):",
            "    def __init__(self):",
            f"        {part.setup}",
            f"    def forward(self, {', '.join(part.inputs)}):",
            f"        return {part.text}",
            "",
        ]
    lines += ["class Net(Module):", "    def __init__(self):"]
    lines += [f"        self.{part.name} = {_class(part.name)}()" for part in parts]
    calls = [f"'{part.name}': self.{part.name}({', '.join(part.given)})" for part in parts]
    lines += [f"    def loss(self, {', '.join(inputs)}):", f"        return {{{', '.join(calls)}}}"]
    path = folder / f"spec_{parts[0].name}_{len(parts)}.py"
    module = load(Source("\n".join(lines) + "\n", path))
    types: dict[str, tuple[tuple[int, ...], DType]] = {
        name: (array.shape, _dtype(array)) for name, array in inputs.items()
    }
    return graph(module.Net(), {"loss": (True, types)}), inputs


class Named(Protocol):
    """What can be run together: it has a name."""

    @property
    def name(self) -> str: ...


Some = TypeVar("Some", bound=Named)


class Unusable(Exception):
    """The backend refuses to run anything; `why` is its own error."""

    def __init__(self, why: PortdetError) -> None:
        self.why = why


def together(
    chosen: Sequence[Some], run: Callable[[Sequence[Some]], tuple[Arrays, Arrays]]
) -> tuple[Arrays, Arrays, dict[str, str]]:
    """Outputs, gradients, and what went wrong by name. All together; where that fails, halves, down to the culprit.

    `run` raises Unusable where the backend refuses, for an absent device, say: no part is to blame then.
    """
    try:
        return *run(chosen), {}
    except Unusable:
        raise
    except Exception as error:
        if len(chosen) == 1:
            return {}, {}, {chosen[0].name: f"{type(error).__name__}: {error}"}
        half = len(chosen) // 2
        parts = [together(part, run) for part in (chosen[:half], chosen[half:])]
        return parts[0][0] | parts[1][0], parts[0][1] | parts[1][1], parts[0][2] | parts[1][2]


def _class(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _dtype(array: Array) -> DType:
    kinds: dict[str, Any] = {"f": "float", "i": "int32", "b": "bool"}
    return kinds[array.dtype.kind]  # type: ignore[no-any-return]
