"""Named activations and gradients of any MindSpore cell, for `portdet.align.compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mindspore as ms

from portdet.align.compare.collect import Collector, Put, reader
from portdet.session import Array


@contextmanager
def collected(cell: ms.nn.Cell, put: Put, *, gradients: bool = True) -> Iterator[None]:
    """While open, every call of a subcell hands its outputs to `put`, and the backward pass their gradients.

    Works in PyNative mode; graph mode calls no hooks.
    """
    collector = Collector(put, ms.Tensor, reader(put, to_numpy, to_view), _watch if gradients else None)
    hooks = [child.register_forward_hook(collector.hook(path)) for path, child in cell.cells_and_names() if path]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def weight_gradients(cell: ms.nn.Cell, gradients: Sequence[Any], put: Put) -> None:
    """'grad/<parameter>', the last parameter first, of what `ms.value_and_grad` gave for `cell.trainable_params()`."""
    for parameter, gradient in reversed(list(zip(cell.trainable_params(), gradients, strict=True))):
        put(f"grad/{parameter.name}", reader(put, to_numpy, to_view)(gradient))


def weights(cell: ms.nn.Cell, put: Put) -> None:
    """'weights/<name>' of every parameter; moving statistics are parameters too."""
    for name, parameter in cell.parameters_and_names():
        put(f"weights/{name}", reader(put, to_numpy, to_view)(parameter))


def to_numpy(tensor: Any) -> Array:
    """A copy: `asnumpy` shares memory that the next step overwrites. bfloat16 as float32."""
    return to_view(tensor).copy()


def to_view(tensor: Any) -> Array:
    """The tensor's own memory; bfloat16 as float32."""
    array: Array = (tensor.astype(ms.float32) if tensor.dtype == ms.bfloat16 else tensor).asnumpy()
    return array


def _watch(tensor: Any, receive: Callable[[Any], None]) -> None:
    tensor.register_hook(receive)
