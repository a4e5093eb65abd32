"""A spec whose loss runs ops on their samples: written as a file, as a spec has to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from portdet.ir.graph import DType, ModuleGraph
from portdet.ir.trace import graph
from portdet.ops import OPS, Op, Sample
from portdet.session import Array, Arrays, Source
from portdet.source import load

LAYERS = ("conv2d",)  # an op that only leaf layers call


@dataclass(frozen=True)
class Case:
    """One sample of one op. `names`: of its tensors, in order, among the inputs of the whole spec."""

    name: str
    op: Op
    sample: Sample
    names: tuple[str, ...]

    def arguments(self, inputs: Arrays) -> list[Any]:
        """The op's arguments, filled from the inputs; tuples keep their form."""
        queue = [inputs[name] for name in self.names]

        def fill(arg: Any) -> Any:
            if isinstance(arg, tuple) and arg and isinstance(arg[0], tuple):
                return tuple(fill(part) for part in arg)
            return queue.pop(0)

        return [fill(arg) for arg in self.sample.args]


def drawn(case: str, sample: Sample) -> Arrays:
    """The sample's tensors by name; floats are float32 values, the same numbers in every precision."""
    random = np.random.default_rng(0)
    found: Arrays = {}

    def draw(arg: Any) -> None:
        if isinstance(arg, tuple) and arg and isinstance(arg[0], tuple):
            for part in arg:
                draw(part)
            return
        array = arg if isinstance(arg, np.ndarray) else random.uniform(sample.lo, sample.hi, arg)
        found[f"{case}_{'abcd'[len(draws)]}"] = array.astype(np.float32) if array.dtype == np.float64 else array
        draws.append(arg)

    draws: list[Any] = []
    for arg in sample.args:
        draw(arg)
    return found


def cases() -> tuple[list[Case], Arrays]:
    """Every op's samples, and the inputs of all of them."""
    found: list[Case] = []
    inputs: Arrays = {}
    for op_name, op in OPS.items():
        if op_name in LAYERS:
            continue
        for number, sample in enumerate(op.samples):
            name = f"{op_name}_{number}"
            arrays = drawn(name, sample)
            inputs |= arrays
            found.append(Case(name, op, sample, tuple(arrays)))
    return found, inputs


def traced(found: Sequence[Case], folder: Path) -> tuple[ModuleGraph, Arrays]:
    """Write the spec of these cases, import it and trace it; and its inputs."""
    names = {name for case in found for name in case.names}
    inputs = {name: array for name, array in cases()[1].items() if name in names}
    lines = ["from portdet import ops", "from portdet.spec import Module", ""]
    calls = []
    for case in found:
        letters = [name[-1] for name in case.names]
        queue = list(letters)

        def text(arg: Any, queue: list[str] = queue) -> str:
            if isinstance(arg, tuple) and arg and isinstance(arg[0], tuple):
                return "[" + ", ".join(text(part) for part in arg) + "]"
            return queue.pop(0)

        arguments = [text(arg) for arg in case.sample.args]
        arguments += [f"{key}={value!r}" for key, value in case.sample.attrs.items()]
        lines += [
            f"class {_class(case.name)}(Module):",
            "    def __init__(self):",
            "        pass",
            f"    def forward(self, {', '.join(letters)}):",
            f"        return ops.{case.op.name}({', '.join(arguments)})",
            "",
        ]
        calls.append(f"'{case.name}': self.{case.name}({', '.join(case.names)})")
    lines += ["class Net(Module):", "    def __init__(self):"]
    lines += [f"        self.{case.name} = {_class(case.name)}()" for case in found]
    lines += [f"    def loss(self, {', '.join(inputs)}):", f"        return {{{', '.join(calls)}}}"]
    path = folder / f"spec_{found[0].name}_{len(found)}.py"
    module = load(Source("\n".join(lines) + "\n", path))
    types: dict[str, tuple[tuple[int, ...], DType]] = {
        name: (array.shape, _dtype(array)) for name, array in inputs.items()
    }
    return graph(module.Net(), {"loss": (True, types)}), inputs


def _class(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _dtype(array: Array) -> DType:
    return {"f": "float", "i": "int32", "b": "bool"}[array.dtype.kind]  # type: ignore[return-value]
