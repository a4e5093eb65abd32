"""The reductions of the checklist: what is wanted against torch in float64, and ways of adding that are found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from portdet.conformance import reductions
from portdet.conformance.reduction_cases import LONG, NORMED, REDUCED, SPREAD, Normed, Reduced, norm_truth
from portdet.session import Array

EPS = reductions.EPS


def one_by_one(x: Array) -> Array:
    """float32, each value added to what is there."""
    return np.asarray(np.add.accumulate(x.astype(np.float32), axis=-1, dtype=np.float32)[..., -1])


def test_the_cases() -> None:
    assert max(int(np.prod(case.shape)) for case in REDUCED if case.op == "mean") == LONG
    assert {case.offset for case in REDUCED} == {0, 1, 100, 1000} == {case.offset for case in NORMED}
    assert {case.keepdims for case in REDUCED} == {True, False}
    names = [*(case.name for case in REDUCED), *(case.name for case in SPREAD), *(case.name for case in NORMED)]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() for name in names)


@pytest.mark.parametrize("case", [case for case in REDUCED if np.prod(case.shape) < 1e6], ids=lambda case: case.name)
def test_what_is_wanted_of_a_reduction_is_what_torch_gives(case: Reduced) -> None:
    one = reductions.tried(case)
    x = torch.from_numpy(one.part.inputs["a"]).double().requires_grad_()
    if case.op == "argmax":
        assert isinstance(case.axis, int)
        np.testing.assert_array_equal(case.wanted(x.detach().numpy()), torch.argmax(x, dim=case.axis).numpy())
        return
    axes = tuple(range(x.ndim)) if case.axis is None else case.axis
    out = getattr(torch, "amax" if case.op == "max" else case.op)(x, dim=axes, keepdim=case.keepdims)
    np.testing.assert_allclose(case.wanted(one.part.inputs["a"]), out.detach().numpy(), rtol=1e-10, atol=1e-12)
    if one.sloped:
        (out * torch.from_numpy(one.cotangent)).sum().backward()
        np.testing.assert_allclose(reductions.slopes(one), x.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("case", NORMED, ids=lambda case: case.name)
def test_what_is_wanted_of_a_norm_is_what_torch_gives(case: Normed) -> None:
    one = reductions.tried(case)
    x = torch.from_numpy(one.part.inputs["a"]).double().requires_grad_()
    y = torch.nn.functional.batch_norm(x, None, None, None, None, True, 0.1, EPS)
    (y * torch.from_numpy(one.cotangent)).sum().backward()
    want, slope = norm_truth(one.part.inputs["a"], one.cotangent, EPS)
    scale = 1 + case.offset
    np.testing.assert_allclose(want, y.detach().numpy(), atol=1e-13 * scale)
    np.testing.assert_allclose(slope, x.grad.numpy(), atol=1e-12 * scale)


@pytest.mark.parametrize(
    "name", ["sum_3x100003_1_at_1", "sum_3x100003_last1_keepdims_at_1000", "mean_18x200x200x16_all_at_1"]
)
def test_adding_one_by_one_is_found(name: str) -> None:
    case = next(case for case in REDUCED if case.name == name)
    x = case.values()
    rows = x.reshape(-1) if case.axis is None else x
    naive = one_by_one(rows) / np.float32(rows.shape[-1] if case.op == "mean" else 1)
    want, scale = case.wanted(x), case.scale(x)
    right = want.astype(np.float32)
    assert reductions.row("", "", right, want, scale, reductions.BOUNDS[case.op]).good
    found = reductions.row(
        "", "", naive.astype(np.float32).reshape(want.shape), want, scale, reductions.BOUNDS[case.op]
    )
    assert not found.good
    assert "roundings" in found.detail
    assert not reductions.row("", "", right * np.float32(np.nan), want, scale, 16.0).good
    assert not reductions.row("", "", np.append(right, right), want, scale, 16.0).good


@pytest.mark.parametrize("offset", [100, 1000])
def test_the_variance_as_a_difference_of_squares_is_found(offset: float) -> None:
    case = next(case for case in NORMED if case.offset == offset)
    one = reductions.tried(case)
    x, axes = one.part.inputs["a"], (0, 2, 3)
    mean = x.mean(axes, keepdims=True, dtype=np.float32)
    variance = (x * x).mean(axes, keepdims=True, dtype=np.float32) - mean * mean
    with np.errstate(invalid="ignore"):
        y = (x - mean) / np.sqrt(variance + np.float32(EPS))
    want, _ = norm_truth(x, one.cotangent, EPS)
    assert not reductions.row("", "", y, want, np.float64(1 + offset), reductions.BOUNDS["norm"]).good
    centred = x - mean
    right = centred / np.sqrt((centred * centred).mean(axes, keepdims=True) + np.float32(EPS))
    assert reductions.row("", "", right, want, np.float64(1 + offset), reductions.BOUNDS["norm"]).good
