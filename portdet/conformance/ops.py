"""Every op on each of its samples: value, type and gradient against the reference in numpy, float64."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from portdet.backends import load_backend
from portdet.conformance.op_cases import Case, cases, part
from portdet.conformance.rows import Row, holds, near
from portdet.conformance.written import Unusable, together, traced
from portdet.errors import PortdetError
from portdet.lower import emit
from portdet.session import Array, Arrays, MethodCall, Options, Source

GRADIENT = 2e-5  # of the largest slope: what float32 leaves; central differences are good to 1e-9
KINDS = {"f": "float32", "i": "int32", "b": "bool"}
CASES, INPUTS = cases()


def check(backend: str, options: Options, folder: Path, only: Sequence[str] = ()) -> list[Row]:
    """A row for each sample's value, and one for each gradient. only: names of ops; empty: all."""
    chosen = [case for case in CASES if not only or case.op.name in only]
    try:
        outs, grads, errors = together(chosen, lambda some: _run(some, backend, options, folder))
    except Unusable as error:
        raise error.why from None
    return [row for case in chosen for row in _rows(case, options.mode, outs, grads, errors)]


def _rows(case: Case, mode: str, outs: Arrays, grads: Arrays, errors: dict[str, str]) -> Iterator[Row]:
    if case.name in errors:
        yield Row("ops", case.name, mode, "failed", errors[case.name])
        return
    got, reference = outs[case.name], wanted(case)
    kind = KINDS[reference.dtype.kind]
    if got.dtype != kind:
        yield holds("ops", case.name, mode, False, f"is {got.dtype}, should be {kind}")
    else:
        yield near("ops", case.name, mode, got, reference, case.op.tolerance)
    for name in _floats([case]):
        yield near("ops", f"{name} gradient", mode, grads[name], slopes(name), GRADIENT, least=1e-3)


def _run(chosen: Sequence[Case], backend: str, options: Options, folder: Path) -> tuple[Arrays, Arrays]:
    graph, inputs = traced([part(case) for case in chosen], folder)
    used = load_backend(backend)
    path = folder / f"ops_{chosen[0].name}_{len(chosen)}_{backend}.py"
    source = Source(emit(graph, used.target, title="Ops."), path)
    factors = {name: array for name, array in cotangents().items() if name in {case.name for case in chosen}}
    call = MethodCall(source, "Net", "loss", inputs, {}, tuple(_floats(chosen)), factors)
    try:
        return used.differentiate(call, options)
    except PortdetError as error:  # an absent device, for one: no op is to blame
        raise Unusable(error) from None


def _floats(chosen: Sequence[Case]) -> list[str]:
    """Inputs with a gradient."""
    return [n for case in chosen if case.op.smooth for n in case.names if INPUTS[n].dtype == np.float32]


def wanted(case: Case, inputs: Arrays = INPUTS) -> Array:
    """The reference's output in float64."""
    wide = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in inputs.items() if n in case.names}
    return np.asarray(case.op.reference(*case.arguments(wide), **case.sample.attrs))


@functools.cache
def cotangents() -> Arrays:
    """What the outputs are weighed with, so that no two gradients are alike."""
    random = np.random.default_rng(1)
    return {c.name: random.uniform(0.5, 1.5, wanted(c).shape).astype(np.float32) for c in CASES if c.op.smooth}


@functools.cache
def slopes(name: str) -> Array:
    """d sum(out * cotangent) / d input by central differences of the reference."""
    case = next(case for case in CASES if name in case.names)
    if case.op.name == "stop_gradient":
        return np.zeros(INPUTS[name].shape)
    if name == "max_pool2d_2_a":  # all equal: each of four windows gives its gradient to its first pixel
        slope = np.zeros(INPUTS[name].shape)
        slope[0, 0, :2, :2] = cotangents()[case.name][0, 0]
        return slope
    cotangent, step = cotangents()[case.name].astype(np.float64), 1e-6
    inputs = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in INPUTS.items() if n in case.names}
    slope = np.zeros(INPUTS[name].shape)
    for index in np.ndindex(slope.shape):
        ends = []
        for sign in (1, -1):
            moved = inputs[name].copy()
            moved[index] += sign * step
            ends.append((wanted(case, {**inputs, name: moved}) * cotangent).sum())
        slope[index] = (ends[0] - ends[1]) / (2 * step)
    return slope
