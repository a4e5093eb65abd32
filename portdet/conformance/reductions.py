"""Sums, means, largest values and batch norm over up to 11.5 million values, near zero and far off, against float64.

A kernel that adds one by one in float32 loses a digit for every hundredfold of the values, one that takes the variance
as mean(x^2) - mean(x)^2 two for every tenfold of mean / std; small samples show neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from portdet.backends import load_backend
from portdet.conformance.reduction_cases import NORMED, REDUCED, SPREAD, Normed, Reduced, Spread, norm_truth
from portdet.conformance.rows import Row
from portdet.conformance.written import Part, Unusable, together, traced
from portdet.errors import PortdetError
from portdet.lower import emit
from portdet.lower.names import native_names
from portdet.session import Array, Arrays, MethodCall, Options, Source

ROUNDING = 2.0**-24  # the relative error of one float32 operation
BOUNDS = {"sum": 16.0, "mean": 16.0, "max": 0.0, "argmax": 0.0, "norm": 64.0, "spread": 32.0}
"""In roundings of the sum of all magnitudes; of a norm, of 1 + mean / std. torch shows 3, compiled
18 for what is spread and 53 for the gradient of a norm at mean / std = 1000."""
EPS = 1e-5


@dataclass(frozen=True)
class Tried:
    """A case as a call, and what its output is weighed with."""

    case: Reduced | Normed | Spread
    part: Part
    cotangent: Array

    @property
    def name(self) -> str:
        return self.part.name

    @property
    def sloped(self) -> bool:
        """Whether a gradient is asked for. `ops.max` is for values without; Paddle's takes 170 s for 400,000."""
        return not (isinstance(self.case, Reduced) and self.case.op in ("max", "argmax"))


def tried(case: Reduced | Normed | Spread) -> Tried:
    """The case with its values drawn."""
    random = np.random.default_rng(5)
    if isinstance(case, Reduced):
        x = case.values()
        shape = np.empty(case.shape, bool).any(axis=case.axis, keepdims=case.keepdims).shape
        return Tried(case, Part(case.name, case.text, {"a": x}), _uniform(random, shape))
    x = random.standard_normal(case.shape, np.float32)
    if isinstance(case, Spread):
        return Tried(case, Part(case.name, "a * b", {"a": x + 1, "b": _uniform(random, case.factor)}),
                     _uniform(random, case.shape))  # fmt: skip
    part = Part(case.name, "self.norm(a)", {"a": x + np.float32(case.offset)},
                f"self.norm = BatchNorm2d({case.shape[1]}, eps={EPS!r})")  # fmt: skip
    return Tried(case, part, _uniform(random, case.shape))


def _uniform(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.asarray(random.uniform(0.5, 1.5, shape), np.float32)


def check(backend: str, options: Options, folder: Path, only: Sequence[str] = ()) -> list[Row]:
    """Rows for each case's value and gradient. only: beginnings of their names; empty: all."""
    cases: list[Reduced | Normed | Spread] = [*REDUCED, *SPREAD, *NORMED]
    cases = [case for case in cases if not only or case.name.startswith(tuple(only))]
    chosen = [tried(case) for case in cases]
    try:
        outs, grads, errors = together(chosen, lambda some: _run(some, backend, options, folder))
    except Unusable as error:
        raise error.why from None
    return [row for one in chosen for row in _rows(one, options.mode, outs, grads, errors)]


def _run(chosen: Sequence[Tried], backend: str, options: Options, folder: Path) -> tuple[Arrays, Arrays]:
    graph, inputs = traced([one.part for one in chosen], folder)
    used = load_backend(backend)
    path = folder / f"reductions_{chosen[0].name}_{len(chosen)}_{backend}.py"
    source = Source(emit(graph, used.target, title="Reductions."), path)
    native = native_names(graph, used.target)
    weights = {
        native[name]: np.full(info.shape, float(name.endswith((".weight", "running_var"))), np.float32)
        for name, info in graph.weights().items()
    }
    sloped = [one for one in chosen if one.sloped]
    asked = tuple(f"{one.name}_{'b' if isinstance(one.case, Spread) else 'a'}" for one in sloped)
    factors = {one.name: one.cotangent for one in sloped}
    try:
        return used.differentiate(MethodCall(source, "Net", "loss", inputs, weights, asked, factors), options)
    except PortdetError as error:  # an absent device, for one
        raise Unusable(error) from None


def _rows(one: Tried, mode: str, outs: Arrays, grads: Arrays, errors: dict[str, str]) -> Iterator[Row]:
    if one.name in errors:
        yield Row("reductions", one.name, mode, "failed", errors[one.name])
        return
    case, x, out = one.case, one.part.inputs["a"], outs[one.name]
    if isinstance(case, Reduced):
        yield row(one.name, mode, out, case.wanted(x), case.scale(x), BOUNDS[case.op])
        if one.sloped:
            yield row(f"{one.name} gradient", mode, grads[f"{one.name}_a"], slopes(one), np.abs(slopes(one)).max(), 4.0)
    elif isinstance(case, Spread):
        axes = tuple(i for i, size in enumerate(_padded(case)) if size == 1)
        terms = x.astype(np.float64) * one.cotangent
        want, scale = (part.sum(axes).reshape(case.factor) for part in (terms, np.abs(terms)))
        yield row(f"{one.name} gradient", mode, grads[f"{one.name}_b"], want, scale, BOUNDS["spread"])
    else:
        y, slope = norm_truth(x, one.cotangent, EPS)
        off = 1.0 + case.offset
        yield row(one.name, mode, out, y, np.float64(off), BOUNDS["norm"])
        yield row(f"{one.name} gradient", mode, grads[f"{one.name}_a"], slope, off * np.abs(slope).max(),
                  BOUNDS["norm"])  # fmt: skip


def _padded(case: Spread) -> tuple[int, ...]:
    """The factor's shape with as many axes as the values have."""
    return (1,) * (len(case.shape) - len(case.factor)) + case.factor


def slopes(one: Tried) -> Array:
    """d sum(out * cotangent) / dx of a sum or mean: the cotangent everywhere, over n."""
    case = one.case
    assert isinstance(case, Reduced)
    x, cotangent = one.part.inputs["a"], one.cotangent.astype(np.float64)
    if not case.keepdims:
        axes = range(x.ndim) if case.axis is None else np.atleast_1d(case.axis).tolist()
        cotangent = np.expand_dims(cotangent, tuple(axis % x.ndim for axis in axes))
    count = x.size / cotangent.size if case.op == "mean" else 1
    return np.broadcast_to(cotangent / count, x.shape)


def row(name: str, mode: str, got: Array, want: Array, scale: Array | np.float64, bound: float) -> Row:
    """The worst value, in roundings of `scale`."""
    if got.shape != want.shape:
        return Row("reductions", name, mode, "failed", f"shape {got.shape} for {want.shape}")
    apart = np.abs(got.astype(np.float64) - want) / (ROUNDING * np.maximum(scale, 1e-30))
    apart = np.where(np.isfinite(apart), apart, np.inf).reshape(-1)
    place = int(np.argmax(apart))
    size = min(float(apart[place]), 1e38)
    text = f"{size:.3g} roundings: {got.reshape(-1)[place]:.9g} for {want.reshape(-1)[place]:.9g}"
    if size <= bound:
        return Row("reductions", name, mode, "passed", text, size)
    return Row("reductions", name, mode, "failed", f"{text}; {bound:g} are allowed", size)
