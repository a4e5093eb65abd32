"""The ops that specs are written with. Names follow numpy and the papers."""

from portdet.ops.conv import conv2d, upsample_nearest
from portdet.ops.elementwise import (
    add,
    bce_with_logits,
    cast,
    div,
    equal,
    exp,
    floor,
    greater,
    leaky_relu,
    less,
    log,
    logical_and,
    logical_not,
    maximum,
    minimum,
    mul,
    neg,
    relu,
    sigmoid,
    sqrt,
    stop_gradient,
    sub,
    where,
)
from portdet.ops.reduce import argmax, matmul, mean
from portdet.ops.reduce import max_ as max
from portdet.ops.reduce import sum_ as sum
from portdet.ops.shape import broadcast_to, concat, constant, gather, getitem, iota, permute, reshape, stack
from portdet.ops.table import OPS, Op, Sample

__all__ = [
    "OPS", "Op", "Sample", "add", "argmax", "bce_with_logits", "broadcast_to", "cast", "concat", "constant", "conv2d",
    "div", "equal", "exp", "floor", "gather", "getitem", "greater", "iota", "leaky_relu", "less", "log", "logical_and",
    "logical_not", "matmul", "max", "maximum", "mean", "minimum", "mul", "neg", "permute", "relu", "reshape", "sigmoid",
    "sqrt", "stack", "stop_gradient", "sub", "sum", "upsample_nearest", "where",
]  # fmt: skip
