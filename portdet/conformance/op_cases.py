"""The ops' samples, as calls of a spec."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from portdet.conformance.written import Part
from portdet.ops import OPS, Op, Sample
from portdet.session import Arrays

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


@functools.cache
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


def part(case: Case) -> Part:
    """The case as a call of a spec; tuples of tensors keep their form."""
    letters = [name[-1] for name in case.names]
    queue = list(letters)

    def text(arg: Any) -> str:
        if isinstance(arg, tuple) and arg and isinstance(arg[0], tuple):
            return "[" + ", ".join(text(one) for one in arg) + "]"
        return queue.pop(0)

    arguments = [text(arg) for arg in case.sample.args]
    arguments += [f"{key}={value!r}" for key, value in case.sample.attrs.items()]
    arrays = cases()[1]
    inputs = {letter: arrays[name] for letter, name in zip(letters, case.names, strict=True)}
    return Part(case.name, f"ops.{case.op.name}({', '.join(arguments)})", inputs)
