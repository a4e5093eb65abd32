"""Every op's reference against torch's own function in float64, and its type rule against what the reference gives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from portdet.ops import OPS, Sample
from portdet.ops.elementwise import NUMPY
from portdet.ops.table import Type

functional = torch.nn.functional

TORCH_TYPES = {"float": torch.float64, "float32": torch.float32, "int32": torch.int32, "bool": torch.bool}


def conv2d(x: Any, weight: Any, bias: Any, *, stride: int, pads: tuple[int, ...], groups: int = 1) -> Any:
    top, bottom, left, right = pads
    return functional.conv2d(functional.pad(x, (left, right, top, bottom)), weight, bias, stride, groups=groups)


def gather(x: Any, index: Any) -> Any:
    rows = index.long()[:, :, None].expand(-1, -1, x.shape[2])
    return torch.gather(x, 1, rows)


def reduced(name: str) -> Callable[..., Any]:
    def call(x: Any, *, axis: Any, keepdims: bool = False) -> Any:
        axes = tuple(range(x.ndim)) if axis is None else axis
        return getattr(torch, name)(x, dim=axes, keepdim=keepdims)

    return call


PEERS: dict[str, Callable[..., Any]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "neg": torch.neg,
    "abs": torch.abs,
    "relu": torch.relu,
    "leaky_relu": lambda x, *, slope: functional.leaky_relu(x, slope),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softplus": lambda x: functional.softplus(x, threshold=500),
    "mish": functional.mish,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "floor": torch.floor,
    "stop_gradient": lambda x: x.detach(),
    "bce_with_logits": lambda x, t: functional.binary_cross_entropy_with_logits(
        *torch.broadcast_tensors(x, t), reduction="none"
    ),
    "less": torch.lt,
    "greater": torch.gt,
    "equal": torch.eq,
    "logical_and": torch.logical_and,
    "logical_not": torch.logical_not,
    "where": torch.where,
    "cast": lambda x, *, dtype: x.to(TORCH_TYPES[dtype]),
    "sum": reduced("sum"),
    "mean": reduced("mean"),
    "max": reduced("amax"),
    "argmax": lambda x, *, axis: torch.argmax(x, dim=axis).int(),
    "matmul": torch.matmul,
    "reshape": lambda x, *, shape: torch.reshape(x, shape),
    "permute": lambda x, *, axes: torch.permute(x, axes),
    "broadcast_to": lambda x, *, shape: torch.broadcast_to(x, shape),
    "getitem": lambda x, *, index: x[index],
    "concat": lambda xs, *, axis: torch.cat(xs, dim=axis),
    "stack": lambda xs, *, axis: torch.stack(xs, dim=axis),
    "iota": lambda like, *, length: torch.arange(length, dtype=like.dtype),
    "constant": lambda like, *, values: torch.tensor(values, dtype=like.dtype),
    "gather": gather,
    "conv2d": conv2d,
    "max_pool2d": lambda x, **attrs: functional.max_pool2d(x, attrs["kernel"], attrs["stride"], attrs["padding"]),
    "avg_pool2d": lambda x, *, kernel: functional.avg_pool2d(x, kernel, ceil_mode=True),
    "upsample_nearest": lambda x, *, factor: functional.interpolate(x, scale_factor=factor, mode="nearest"),
}

EXTRA = {
    "conv2d": [
        Sample(((1, 2, 9, 6), (3, 2, 3, 3), None), {"stride": 2, "pads": (2, 1, 0, 3)}),
        Sample(((1, 6, 5, 5), (6, 1, 5, 5), (6,)), {"stride": 1, "pads": (2, 2, 2, 2), "groups": 6}),
    ],
    "getitem": [
        Sample(((3, 4, 5),), {"index": (-1, Ellipsis, slice(-2, None))}),
        Sample(((3, 4),), {"index": (slice(None, 2), 1)}),
    ],
    "matmul": [Sample(((2, 1, 3, 4), (5, 4, 2)))],
    "mean": [Sample(((2, 3),), {"axis": None})],
    "max_pool2d": [Sample(((2, 3, 9, 5),), {"kernel": 2, "stride": 2, "padding": 0})],
    "avg_pool2d": [Sample(((2, 3, 7, 8),), {"kernel": 3})],
    "concat": [Sample((((2, 3), (1, 3), (4, 3)),), {"axis": 0}), Sample((((2, 3), (2, 2)),), {"axis": -1})],
    "reshape": [Sample(((2, 3, 4),), {"shape": (2, -1)})],
    "cast": [Sample((np.array([-2, 0, 7], np.int32),), {"dtype": "float32"})],
    "leaky_relu": [Sample((np.array([-1.0, -0.0, 0.0, 2.0]),), {"slope": 0.1})],
}

CASES = [(name, number) for name, op in OPS.items() for number in range(len(op.samples) + len(EXTRA.get(name, [])))]


def is_shape(arg: Any) -> bool:
    return isinstance(arg, tuple) and all(isinstance(part, int) for part in arg)


def drawn(sample: Sample) -> list[Any]:
    """The sample's arrays."""
    random = np.random.default_rng(0)

    def draw(arg: Any) -> Any:
        if is_shape(arg):
            return random.uniform(sample.lo, sample.hi, arg)
        return tuple(draw(part) for part in arg) if isinstance(arg, tuple) else arg

    return [draw(arg) for arg in sample.args]


def type_from_array(arg: Any) -> Any:
    if isinstance(arg, tuple):
        return [type_from_array(part) for part in arg]
    if arg is None:
        return None
    return arg.shape, next(name for name, kind in NUMPY.items() if arg.dtype == kind)


def to_torch(arg: Any) -> Any:
    if isinstance(arg, tuple):
        return [to_torch(part) for part in arg]
    return None if arg is None else torch.from_numpy(np.array(arg))


def sample_of(name: str, number: int) -> Sample:
    return [*OPS[name].samples, *EXTRA.get(name, [])][number]


def check(name: str, reference: Callable[..., Any], sample: Sample) -> None:
    """Red where the reference differs from torch in shape, type or value."""
    args = drawn(sample)
    got = np.asarray(reference(*args, **sample.attrs))
    want = PEERS[name](*map(to_torch, args), **sample.attrs).numpy()
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=1e-13, atol=2e-15)


def test_every_op_has_a_peer_and_samples() -> None:
    assert set(PEERS) == set(OPS)
    assert not [name for name, op in OPS.items() if not op.samples]


@pytest.mark.parametrize(("name", "number"), CASES)
def test_reference_equals_torch(name: str, number: int) -> None:
    check(name, OPS[name].reference, sample_of(name, number))


@pytest.mark.parametrize(("name", "number"), CASES)
def test_type_rule_tells_what_the_reference_gives(name: str, number: int) -> None:
    sample = sample_of(name, number)
    args = drawn(sample)
    shape, dtype = OPS[name].infer(*map(type_from_array, args), **sample.attrs)
    made = np.asarray(OPS[name].reference(*args, **sample.attrs))
    assert tuple(shape) == made.shape
    assert NUMPY[dtype] == made.dtype


@pytest.mark.parametrize("name", ["sub", "div", "less", "conv2d", "gather", "where"])
def test_a_wrong_reference_is_found(name: str) -> None:
    swaps: dict[str, Callable[..., Any]] = {
        "sub": lambda a, b: b - a,
        "div": lambda a, b: b / a,
        "less": lambda a, b: a <= b,
        "conv2d": lambda x, w, b, **attrs: OPS["conv2d"].reference(x, w[:, :, ::-1, ::-1], b, **attrs),
        "gather": lambda x, index: OPS["gather"].reference(x, index[:, ::-1]),
        "where": lambda c, a, b: np.where(c, b, a),
    }
    sample = OPS[name].samples[0]
    if name == "less":
        sample = dataclasses.replace(sample, args=(np.zeros((2, 2)), np.zeros((2, 2))))
    with pytest.raises(AssertionError):
        check(name, swaps[name], sample)


BROKEN: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("add", [((2, 3), "float"), ((2, 4), "float")], {}),
    ("conv2d", [((1, 3, 8, 8), "float"), ((4, 5, 3, 3), "float"), None], {"stride": 1, "pads": (0, 0, 0, 0)}),
    ("matmul", [((2, 3), "float"), ((4, 5), "float")], {}),
    ("reshape", [((2, 3), "float")], {"shape": (4, -1)}),
    ("concat", [[((2, 3), "float"), ((3, 3), "float")]], {"axis": 1}),
    ("broadcast_to", [((2, 3), "float")], {"shape": (2, 4)}),
    ("permute", [((2, 3), "float")], {"axes": (0, 2)}),
    ("gather", [((2, 3), "float"), ((2, 4), "int32")], {}),
    ("max_pool2d", [((1, 1, 8, 8), "float")], {"kernel": 3, "stride": 1, "padding": 2}),
]


@pytest.mark.parametrize(("name", "types", "attrs"), BROKEN)
def test_type_rule_refuses_what_does_not_fit(name: str, types: list[Type], attrs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        OPS[name].infer(*types, **attrs)
