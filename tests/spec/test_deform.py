"""Deformable convolution: against Paddle's kernel, the formula written as loops, and cases that are known by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.ir.graph import DType
from portdet.ir.summary import summary
from portdet.ir.trace import graph
from portdet.reference.gradients import gradients
from portdet.spec import DeformConv2d, load

NAMES = {"x": "dcn.x", "offset": "dcn.off", "mask": "dcn.mask", "conv.weight": "dcn.w"}
PEER_GRADIENTS = {"x": "dcn.gx", "offset": "dcn.goff", "mask": "dcn.gmask", "conv.weight": "dcn.gw"}
Array = np.ndarray[Any, Any]


def traced(module: DeformConv2d, **shapes: tuple[int, ...]) -> Any:
    types: dict[str, tuple[tuple[int, ...], DType]] = {name: (shape, "float") for name, shape in shapes.items()}
    return graph(module, {"forward": (False, types)})


def loops(x: Array, offset: Array, mask: Array, weight: Array, stride: int, padding: int) -> Array:
    """The formula of DCNv2, one product at a time."""
    cout, cin, kernel, _ = weight.shape
    batch, _, h, w = offset.shape
    y = np.zeros((batch, cout, h, w))

    def at(b: int, c: int, row: float, column: float) -> float:
        total = 0.0
        for i in (int(np.floor(row)), int(np.floor(row)) + 1):
            for j in (int(np.floor(column)), int(np.floor(column)) + 1):
                if 0 <= i < x.shape[2] and 0 <= j < x.shape[3]:
                    total += x[b, c, i, j] * (1 - abs(row - i)) * (1 - abs(column - j))
        return total

    for b, o, c, r, s, i, j in np.ndindex(batch, cout, cin, h, w, kernel, kernel):
        tap = i * kernel + j
        row = r * stride - padding + i + offset[b, 2 * tap, r, s]
        column = s * stride - padding + j + offset[b, 2 * tap + 1, r, s]
        y[b, o, r, s] += weight[o, c, i, j] * mask[b, tap, r, s] * at(b, c, row, column)
    return y


def test_equals_paddle(oracles: Path) -> None:
    """deform_conv2d of Paddle 3.3.1 on CPU in float32, its gradients too (ten elements of each)."""
    peer = np.load(oracles / "nms" / "ppdet_ops.npz")
    module = DeformConv2d(6, 4)
    given = {name: peer[key].astype(np.float64) for name, key in NAMES.items()}
    weights = {"conv.weight": given.pop("conv.weight")}
    load(module, weights)
    np.testing.assert_allclose(module(*given.values()), peer["dcn.y"], rtol=1e-5, atol=5e-6)
    sizes = {name: array.size for name, array in {**given, **weights}.items()}
    chosen = {name: list(np.random.default_rng(0).choice(size, 10)) for name, size in sizes.items()}
    shapes = {name: array.shape for name, array in given.items()}
    found = gradients(
        traced(module, **shapes), "forward", False, weights, given, lambda y: (y * peer["dcn.gy"]).sum(), chosen
    )
    for name, key in PEER_GRADIENTS.items():
        want = peer[key].reshape(-1)[chosen[name]]
        np.testing.assert_allclose(found[name], want, rtol=1e-5, atol=1e-5 * np.abs(peer[key]).max())


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"), [(3, 2, 1, (5, 6)), (3, 1, 0, (4, 5)), (1, 1, 0, (3, 4))]
)
def test_equals_the_formula(kernel: int, stride: int, padding: int, size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    h, w = ((side + 2 * padding - kernel) // stride + 1 for side in size)
    x, weight = random.normal(size=(2, 3, *size)), random.normal(size=(2, 3, kernel, kernel))
    offset = random.uniform(-3, 3, (2, 2 * kernel**2, h, w))
    offset[:, :, 0] = np.round(offset[:, :, 0])  # whole pixels, on and beyond the edge too
    mask = random.uniform(0, 1, (2, kernel**2, h, w))
    module = DeformConv2d(3, 2, kernel, stride, padding)
    load(module, {"conv.weight": weight})
    np.testing.assert_allclose(
        module(x, offset, mask), loops(x, offset, mask, weight, stride, padding), rtol=1e-12, atol=1e-12
    )


def test_offsets_are_dy_then_dx_of_each_tap() -> None:
    """The middle tap alone: one down and half a pixel to the right is the mean of two neighbours below."""
    x = np.arange(12.0).reshape(1, 1, 3, 4)
    weight = np.zeros((1, 1, 3, 3))
    weight[0, 0, 1, 1] = 1
    offset, mask = np.zeros((1, 18, 3, 4)), np.full((1, 9, 3, 4), 0.5)
    offset[0, 8], offset[0, 9] = 1, 0.5
    module = DeformConv2d(1, 1)
    load(module, {"conv.weight": weight})
    y = module(x, offset, mask)[0, 0]
    np.testing.assert_array_equal(y, 0.5 * np.array([[4.5, 5.5, 6.5, 3.5], [8.5, 9.5, 10.5, 5.5], [0, 0, 0, 0]]))


def test_its_arithmetic_is_that_of_the_plain_convolution() -> None:
    """2 x out x in x 9 x 19 x 19: PP-YOLO's last stage at 608."""
    rows = summary(
        traced(DeformConv2d(512, 512), x=(1, 512, 19, 19), offset=(1, 18, 19, 19), mask=(1, 9, 19, 19)),
        method="forward",
    )
    assert rows[0].flops == 2 * 512 * 512 * 9 * 19 * 19
    assert rows[0].parameters == 512 * 512 * 9
