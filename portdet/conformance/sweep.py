"""Every elementwise op over all of float32's range: value and gradient at 100,000 places, against float64.

Samples of a few values miss a kernel that is a polynomial between two of them. Each op runs on its values in one piece,
as a column, and in pieces shorter than a vector, since kernels have a part for each. What lies below the least normal
number may count as zero, as input and as result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from portdet.backends import load_backend
from portdet.conformance.grids import arranged
from portdet.conformance.rows import Row, holds
from portdet.conformance.sweep_cases import SWEPT, Swept, spoiled
from portdet.conformance.ulps import Worst, flushed, worst
from portdet.conformance.written import Part, Unusable, together, traced
from portdet.errors import PortdetError
from portdet.lower import emit
from portdet.session import Array, Arrays, MethodCall, Options, Source

KINDS = {"f": "float32", "i": "int32", "b": "bool"}
SPOILED = "nan and infinity"


@dataclass(frozen=True)
class Piece:
    """An op on one arrangement of its values. `inputs` as the op sees them, `part` as the spec is given them."""

    case: Swept
    where: str
    inputs: tuple[Array, ...]
    part: Part

    @property
    def name(self) -> str:
        return self.part.name


def pieces(case: Swept) -> list[Piece]:
    """All arrangements of a case, and the inputs that are no numbers."""
    found = dict(arranged(case.inputs()))
    if hidden := spoiled(case):
        found[SPOILED] = hidden
    return [_piece(case, where, arrays) for where, arrays in found.items()]


def _piece(case: Swept, where: str, arrays: tuple[Array, ...]) -> Piece:
    letters = "abc"[: len(arrays)]
    column = arrays[0].ndim == 2
    text = case.text([f"{letter}[:, 0]" if column else letter for letter in letters])
    part = Part(f"{case.name}_{where.split()[0]}", text, dict(zip(letters, arrays, strict=True)))
    return Piece(case, where, tuple(array[:, 0] for array in arrays) if column else arrays, part)


def check(backend: str, options: Options, folder: Path, only: Sequence[str] = ()) -> list[Row]:
    """A row for each op's value, one for each gradient, one for nan and infinity. only: names of ops; empty: all."""
    chosen = [piece for case in SWEPT if not only or case.op in only for piece in pieces(case)]
    try:
        outs, grads, errors = together(chosen, lambda some: _run(some, backend, options, folder))
    except Unusable as error:
        raise error.why from None
    names = dict.fromkeys(piece.case.name for piece in chosen)
    of_case = {name: [piece for piece in chosen if piece.case.name == name] for name in names}
    return [row for found in of_case.values() for row in _rows(found, options.mode, outs, grads, errors)]


def _run(chosen: Sequence[Piece], backend: str, options: Options, folder: Path) -> tuple[Arrays, Arrays]:
    graph, inputs = traced([piece.part for piece in chosen], folder)
    used = load_backend(backend)
    path = folder / f"sweep_{chosen[0].name}_{len(chosen)}_{backend}.py"
    source = Source(emit(graph, used.target, title="Elementwise ops."), path)
    asked = [f"{piece.name}_{letter}" for piece in chosen for letter in piece.case.slopes]
    factors = {p.name: np.ones(p.inputs[0].shape, np.float32) for p in chosen if p.case.slopes}
    try:
        return used.differentiate(MethodCall(source, "Net", "loss", inputs, {}, tuple(asked), factors), options)
    except PortdetError as error:  # an absent device, for one: no op is to blame
        raise Unusable(error) from None


def _rows(found: list[Piece], mode: str, outs: Arrays, grads: Arrays, errors: dict[str, str]) -> Iterator[Row]:
    case = found[0].case
    if broken := [f"{piece.where}: {errors[piece.name]}" for piece in found if piece.name in errors]:
        yield Row("sweep", case.name, mode, "failed", broken[0])
        return
    numbers = [piece for piece in found if piece.where != SPOILED]
    kind = KINDS[case.wanted([np.ones(1, part.dtype) for part in case.inputs()]).dtype.kind]
    if wrong := [outs[piece.name].dtype for piece in found if outs[piece.name].dtype != kind]:
        yield holds("sweep", case.name, mode, False, f"is {wrong[0]}, should be {kind}")
        return
    yield _row(case.name, mode, [(p, value(p, outs[p.name], case.least)) for p in numbers], case.bound)
    if case.least < 1 and case.bound > 1:  # a small value that is wrong does no harm where it is added to others
        yield _row(f"{case.name}, absolute", mode, [(p, value(p, outs[p.name], 1.0)) for p in numbers], case.bound)
    for letter in case.slopes:
        name = f"{case.name} gradient" + (f" of {letter}" if len(case.slopes) > 1 else "")
        apart = [(piece, slope(piece, letter, grads[f"{piece.name}_{letter}"])) for piece in numbers]
        yield _row(name, mode, apart, case.slope_bound)
    for piece in found[len(numbers) :]:
        yield _row(f"{case.name} of {SPOILED}", mode, [(piece, value(piece, outs[piece.name], 1.0))], case.bound)


def value(piece: Piece, got: Array, least: float) -> Worst:
    """The worst value of an arrangement. What is not finite may be so in another way."""
    with np.errstate(all="ignore"):
        wants = tuple(piece.case.wanted(inputs) for inputs in _views(piece))
    if piece.where == SPOILED:
        wants = tuple(np.where(np.isfinite(want) | np.isfinite(got), want, got) for want in wants)
    return worst(got, wants, least)


def slope(piece: Piece, letter: str, got: Array) -> Worst:
    """The worst slope of an arrangement, where the op has one. Of a column the other column has none."""
    if got.shape != piece.part.inputs[letter].shape:
        return Worst(0, float("inf"), float(got.size), float(piece.inputs[0].size))
    got = got[:, 0] if got.ndim == 2 else got
    with np.errstate(all="ignore"):
        wants = [np.broadcast_to(piece.case.slopes[letter](*inputs), got.shape) for inputs in _views(piece)]
        smooth = piece.case.smooth(*piece.inputs)
    masked = tuple(np.where(smooth, want, got) for want in wants)
    return worst(got, masked, piece.case.slope_least)


def _views(piece: Piece) -> list[tuple[Array, ...]]:
    """The inputs in float64, and as a kernel sees them that takes the smallest ones for zero."""
    wide = [part.astype(np.float64) if part.dtype == np.float32 else part for part in piece.inputs]
    return [tuple(wide), tuple(flushed(part) for part in wide)]


def _row(name: str, mode: str, found: Sequence[tuple[Piece, Worst]], bound: float) -> Row:
    """The worst of all arrangements, in words."""
    piece, most = max(found, key=lambda item: item[1].ulps)
    inputs = ", ".join(f"{float(part[min(most.place, part.size - 1)]):.9g}" for part in piece.inputs)
    text = f"{most.ulps:.3g} ulp at {inputs} ({piece.where}): {most.got:.9g} for {most.want:.9g}"
    if most.ulps <= bound:
        return Row("sweep", name, mode, "passed", text, most.ulps)
    return Row("sweep", name, mode, "failed", f"{text}; {bound:g} are allowed", most.ulps)
