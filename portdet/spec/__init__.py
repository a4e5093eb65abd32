"""What a detector is written in: modules, layers, functions."""

from portdet.spec.layers import BatchNorm2d, Conv2d
from portdet.spec.module import Module, Param, Sequential, function, load, method, update

__all__ = ["BatchNorm2d", "Conv2d", "Module", "Param", "Sequential", "function", "load", "method", "update"]
