"""Named activations and gradients of any Paddle layer, for `portdet.align.compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import paddle

from portdet.align.compare.collect import Collector, Put, reader
from portdet.session import Array


@contextmanager
def collected(layer: paddle.nn.Layer, put: Put, *, gradients: bool = True) -> Iterator[None]:
    """While open, every call of a sublayer hands its outputs to `put`, and the backward pass their gradients.

    Works in dygraph; a layer behind paddle.jit.to_static has to be given as it was before.
    """
    collector = Collector(put, paddle.Tensor, reader(put, to_numpy, to_view), _watch if gradients else None, _version)
    hooks = [child.register_forward_post_hook(collector.hook(path)) for path, child in layer.named_sublayers() if path]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def weight_gradients(layer: paddle.nn.Layer, put: Put) -> None:
    """After the backward pass: 'grad/<parameter>', the last parameter first; those without a gradient are left out."""
    for name, parameter in reversed(list(layer.named_parameters())):
        if parameter.grad is not None:
            put(f"grad/{name}", reader(put, to_numpy, to_view)(parameter.grad))


def weights(layer: paddle.nn.Layer, put: Put) -> None:
    """'weights/<name>' of every parameter and buffer."""
    for name, tensor in layer.state_dict().items():
        put(f"weights/{name}", reader(put, to_numpy, to_view)(tensor))


def to_numpy(tensor: Any) -> Array:
    """A copy; bfloat16 as float32."""
    return to_view(tensor).copy()


def to_view(tensor: Any) -> Array:
    """What `Tensor.numpy` gives, to be looked at before anything else runs; bfloat16 as float32."""
    tensor = tensor.detach()
    array: Array = (tensor.astype("float32") if tensor.dtype == paddle.bfloat16 else tensor).numpy()
    return array


def _watch(tensor: Any, receive: Callable[[Any], None]) -> None:
    if not tensor.stop_gradient:
        tensor.register_hook(receive)


def _version(tensor: Any) -> int:
    """Counts what was written into a tensor in place."""
    return int(tensor.inplace_version)
