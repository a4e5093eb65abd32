"""The ops that specs are written with. Names follow numpy and the papers."""

from portdet.ops.conv import conv2d, upsample_nearest
from portdet.ops.elementwise import abs_ as abs
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
    mish,
    mul,
    neg,
    relu,
    sigmoid,
    softplus,
    sqrt,
    stop_gradient,
    sub,
    tanh,
    where,
)
from portdet.ops.pool import avg_pool2d, max_pool2d
from portdet.ops.reduce import argmax, matmul, mean
from portdet.ops.reduce import max_ as max
from portdet.ops.reduce import sum_ as sum
from portdet.ops.shape import broadcast_to, concat, constant, gather, getitem, iota, permute, reshape, stack
from portdet.ops.table import OPS, Op, Sample

__all__ = [
    "OPS", "Op", "Sample", "abs", "add", "argmax", "avg_pool2d", "bce_with_logits", "broadcast_to", "cast", "concat",
    "constant", "conv2d", "div", "equal", "exp", "floor", "gather", "getitem", "greater", "iota", "leaky_relu", "less",
    "log", "logical_and", "logical_not", "matmul", "max", "max_pool2d", "maximum", "mean", "minimum", "mish", "mul",
    "neg", "permute", "relu", "reshape", "sigmoid", "softplus", "sqrt", "stack", "stop_gradient", "sub", "sum", "tanh",
    "upsample_nearest", "where",
]  # fmt: skip
