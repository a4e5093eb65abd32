"""What a detector is written in: modules, layers, functions."""

from portdet.spec.deform import DeformConv2d
from portdet.spec.layers import BatchNorm2d, Conv2d, Init
from portdet.spec.module import Module, Param, Sequential, function, load, method, update

__all__ = [
    "BatchNorm2d", "Conv2d", "DeformConv2d", "Init", "Module", "Param", "Sequential", "function", "load", "method",
    "update",
]  # fmt: skip
