"""The sweep itself: that it looks everywhere, at what is true, and finds kernels that are wrong somewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from portdet.conformance import sweep
from portdet.conformance.grids import COUNT, everywhere, pairs, positive
from portdet.conformance.rows import Row, declared
from portdet.conformance.sweep_cases import SWEPT, Swept
from portdet.conformance.ulps import HUGE, flushed, ulps, worst
from portdet.ops import OPS
from portdet.session import Array, Inexact
from tests.ops.test_ops_against_torch import PEERS

CASES = {case.name: case for case in SWEPT}


def test_every_elementwise_op_is_swept() -> None:
    elementwise = {name for name, op in OPS.items() if op.reference.__module__ == "portdet.ops.elementwise"}
    assert {case.op for case in SWEPT} == elementwise
    without = {case.name for case in SWEPT if OPS[case.op].smooth and not case.slopes}
    assert without == set()


def test_the_values_are_those_that_kernels_go_wrong_at() -> None:
    x = everywhere()
    assert x.dtype == np.float32
    assert x.size == COUNT >= 100_000
    assert COUNT % 2 == 1  # of 4, 8 and 16 values at a time, some are left over
    held = set(x.tolist())
    for power in range(-149, 128):
        one = np.float32(2.0**power)
        for value in (one, np.nextafter(one, np.float32(np.inf)), np.nextafter(one, np.float32(0))):
            assert {float(value), -float(value)} <= held
    assert {0.0, 5.0, -5.0} <= held
    assert np.diff(x[(x > -20) & (x < 20)]).max() < 2e-3
    assert (np.abs(x[x != 0]) < 2.0**-126).sum() > 1000
    assert np.isfinite(x).all()
    assert np.abs(x).max() > 3.402e38
    near = positive()[(positive() > 0.9999) & (positive() < 1.0001)]
    assert np.diff(near).max() <= 2.0**-23
    assert positive().min() > 0
    a, b = pairs()
    assert min((a == b).sum(), (a == -b).sum(), (np.nextafter(a, np.float32(0)) == b).sum()) > 10_000


def test_the_unit() -> None:
    """By hand: float32 has 23 bits behind the first: next to 1 an ulp is 2^-23, next to 5e-5 (2^-15 to 2^-14) 2^-38."""
    one = np.array([1.0])
    assert ulps(one + 2.0**-23, one, 0.0) == 1
    assert ulps(one * 5e-5 + 2.0**-37, one * 5e-5, 0.0) == pytest.approx(2)
    assert ulps(one * 5e-5 + 2.0**-23, one * 5e-5, 1.0) == pytest.approx(1)
    assert ulps(one * np.inf, one * 3.5e38, 0.0) == pytest.approx((HUGE - 3.402823669209385e38) / 2**104)
    assert ulps(one * np.inf, one * 3.4e38, 0.0) > 1e4
    assert ulps(one * 0, one * 1e-40, 0.0) == 0  # below the least normal number
    assert ulps(one * 0, one * 2.4e-38, 0.0) > 1e6
    assert ulps(one * np.nan, one, 0.0) == HUGE
    assert ulps(one, one * np.nan, 0.0) == HUGE
    assert ulps(one * np.nan, one * np.nan, 0.0) == 0
    assert flushed(np.array([1e-40, -1e-40, 1e-37])).tolist() == [0, 0, 1e-37]
    assert worst(np.array([1.0, 3.0]), (np.array([1.0, 2.0]), np.array([9.0, 3.0])), 0.0).ulps == 0


def in_torch(case: Swept, inputs: tuple[Array, ...]) -> tuple[Array, dict[str, Array]]:
    """Values and slopes of torch's own function in float64, by its own derivative."""
    tensors = [torch.from_numpy(np.array(part)) for part in inputs]
    tensors = [t.double().requires_grad_() if t.dtype == torch.float32 else t for t in tensors]
    more = [] if case.number is None else [torch.full_like(tensors[0], case.number)]
    out = PEERS[case.op](*tensors, *more, **case.attrs)
    if case.slopes and out.requires_grad:
        out.sum().backward()
    grads = {k: torch.zeros_like(t) if t.grad is None else t.grad for k, t in zip("abc", tensors, strict=False)}
    return out.detach().numpy(), {letter: grads[letter].numpy() for letter in case.slopes}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wanted_is_what_torch_gives_in_float64(name: str) -> None:
    """Closed forms and reference against another program, everywhere: 1e-3 ulp, or what is left of 1e-16 of a slope."""
    case = CASES[name]
    inputs = case.inputs()
    wide = tuple(part.astype(np.float64) if part.dtype == np.float32 else part for part in inputs)
    with np.errstate(all="ignore"):
        out, slopes = in_torch(case, inputs)
        assert ulps(out, case.wanted(wide), max(case.least, 1e-30)).max() < 1e-3
        smooth = case.smooth(*inputs)
        for letter, slope in slopes.items():
            want = np.broadcast_to(case.slopes[letter](*wide), slope.shape)
            assert ulps(slope[smooth], want[smooth], max(case.slope_least, 1e-30)).max() < 1e-3, letter


def exact(case: Swept, where: str) -> tuple[sweep.Piece, Array]:
    """An arrangement of a case, and its values correctly rounded."""
    piece = next(piece for piece in sweep.pieces(case) if piece.where == where)
    with np.errstate(all="ignore"):
        wide = [p.astype(np.float64) if p.dtype == np.float32 else p for p in piece.inputs]
        return piece, np.asarray(case.wanted(wide), np.float32)


def rational_tanh(x: Array) -> Array:
    """Lambert's continued fraction, cut off: right to 1e-7 within 2 and from 7 on, where samples are: 1e-4 off at 5."""
    s = x.astype(np.float64) ** 2
    top = ((s + 378) * s + 17325) * s + 135135
    quotient = x * top / (((28 * s + 3150) * s + 62370) * s + 135135)
    return np.asarray(np.clip(quotient, -1, 1), np.float32)


FAULTS: dict[str, tuple[str, str, Callable[[Array, Array], Array]]] = {
    "a rational function": ("tanh", "whole", lambda x, y: rational_tanh(x)),
    "2 sigmoid(2x) - 1": ("tanh", "whole", lambda x, y: 2 / (1 + np.exp(-2 * x)) - np.float32(1)),
    "the logarithm of 2 to six digits": (
        "exp",
        "whole",
        lambda x, y: y * (1 + 2.6e-7 * np.clip(x, -80, 80).astype(np.float64)).astype(np.float32),
    ),
    "overflow one power early": ("exp", "whole", lambda x, y: np.where(x > 88, np.float32(np.inf), y)),
    "overflow that is a number": ("exp", "whole", lambda x, y: np.minimum(y, np.float32(3.4e38))),
    "log(1 + x) for small x": ("softplus", "whole", lambda x, y: np.where(x > 80, x, np.log(1 + np.exp(x)))),
    "the last three values": ("sigmoid", "whole", lambda x, y: np.append(y[:-3], np.float32(0.999) * y[-3:])),
    "values one by one": ("sigmoid", "column", lambda x, y: y * np.float32(1.00001)),
    "too few for a vector": ("mish", "7 values", lambda x, y: y * np.float32(1.00001)),
    "one power of two": ("sqrt", "whole", lambda x, y: np.where(x == 2.0**-66, y * np.float32(1.0001), y)),
    "equal within 1e-8": ("equal", "whole", lambda x, y: (y > 0) | (np.abs(x) < 5e-9)),
    "nan becomes 0": ("relu", sweep.SPOILED, lambda x, y: np.nan_to_num(y, nan=0.0, posinf=np.inf)),
    "infinity becomes a number": ("maximum_number", sweep.SPOILED, lambda x, y: np.minimum(y, np.float32(3e38))),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_kernel_is_found(fault: str) -> None:
    name, where, broken = FAULTS[fault]
    case = CASES[name]
    with np.errstate(all="ignore"):
        piece, right = exact(case, where)
        assert sweep.value(piece, right, case.least).ulps <= case.bound
        wrong = broken(piece.inputs[0], right)
        assert sweep.value(piece, wrong, case.least).ulps > case.bound


def test_the_place_is_named() -> None:
    piece, _ = exact(CASES["tanh"], "whole")
    row = sweep._row("tanh", "eager", [(piece, sweep.value(piece, rational_tanh(piece.inputs[0]), 0.0))], 8.0)
    assert row.outcome == "failed"
    assert "(whole)" in row.detail
    assert row.detail.endswith("8 are allowed")
    place = float(row.detail.split(" at ")[1].split()[0])
    assert 4 < abs(place) < 6


def test_a_wrong_slope_is_found() -> None:
    """1 - y^2 of a tanh that is off, as the kernel that was: 2e-4 wrong at 5, where the slope is 1.8e-4."""
    piece, _ = exact(CASES["tanh"], "whole")
    x = piece.inputs[0].astype(np.float64)
    slope = (1 - np.tanh(x) ** 2).astype(np.float32)
    assert sweep.slope(piece, "a", slope).ulps <= 1
    assert sweep.slope(piece, "a", 1 - rational_tanh(piece.inputs[0]) ** 2).ulps > 100
    assert sweep.slope(piece, "a", slope[:-1]).ulps == float("inf")
    relu, _ = exact(CASES["relu"], "whole")
    half = np.where(relu.inputs[0] == 0, 0.5, relu.inputs[0] > 0).astype(np.float32)
    assert sweep.slope(relu, "a", half).ulps == 0  # at 0 frameworks differ by definition
    assert sweep.slope(relu, "a", np.where(relu.inputs[0] == 2.0**-20, 0, half)).ulps > 1e6


ROW = Row("sweep", "mish", "eager", "failed", "30 ulp at 5; 8 are allowed", size=30.0)


@pytest.mark.parametrize(
    ("size", "outcome", "words"),
    [
        (40.0, "known", "its tanh: 30 ulp at 5"),
        (29.0, "failed", "29 is declared"),
        (121.0, "failed", "far more than there is"),
    ],
)
def test_a_declared_size_is_strict(size: float, outcome: str, words: str) -> None:
    (row,) = declared([ROW], {"sweep/mish": Inexact(size, "its tanh")})
    assert row.outcome == outcome
    assert words in row.detail


def test_a_size_that_is_no_longer_needed_is_found() -> None:
    (row,) = declared([Row("sweep", "mish", "eager", "passed", "", 3.0)], {"sweep/mish": Inexact(40.0, "its tanh")})
    assert row.outcome == "passed unexpectedly"
    (row,) = declared(
        [Row("sweep", "mish", "eager", "failed", "ValueError")], {"sweep/mish": Inexact(40.0, "its tanh")}
    )
    assert row.outcome == "failed"
    assert "it broke" in row.detail


def test_gradients_of_a_column_are_of_its_first_column() -> None:
    piece, _ = exact(CASES["neg"], "column")
    made: Any = np.stack([np.full(piece.inputs[0].size, -1.0), np.zeros(piece.inputs[0].size)], axis=1)
    assert sweep.slope(piece, "a", made.astype(np.float32)).ulps == 0
