"""Named activations and gradients of any PyTorch module, for `portdet.align.compare`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from portdet.align.compare.collect import Collector, Put, reader
from portdet.session import Array


@contextmanager
def collected(module: torch.nn.Module, put: Put, *, gradients: bool = True) -> Iterator[None]:
    """While open, every call of a submodule hands its outputs to `put`, and the backward pass their gradients.

        with DumpWriter(path) as dump, collected(model, dump.put):
            loss = criterion(model(images), targets)
            loss.backward()
        weight_gradients(model, ...)

    Works eagerly; a module behind torch.compile has to be given as it was before.
    """
    collector = Collector(put, torch.Tensor, reader(put, to_numpy, to_view), _watch if gradients else None, _version)
    hooks = [child.register_forward_hook(collector.hook(path)) for path, child in module.named_modules() if path]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def weight_gradients(module: torch.nn.Module, put: Put) -> None:
    """After the backward pass: 'grad/<parameter>', the last parameter first; those without a gradient are left out."""
    for name, parameter in reversed(list(module.named_parameters())):
        if parameter.grad is not None:
            put(f"grad/{name}", reader(put, to_numpy, to_view)(parameter.grad))


def weights(module: torch.nn.Module, put: Put) -> None:
    """'weights/<name>' of every parameter and buffer."""
    for name, tensor in module.state_dict().items():
        put(f"weights/{name}", reader(put, to_numpy, to_view)(tensor))


def to_numpy(tensor: Any) -> Array:
    """A copy; bfloat16 as float32."""
    return to_view(tensor).copy()


def to_view(tensor: Any) -> Array:
    """The tensor's own memory, where it lies on the host; bfloat16 as float32."""
    tensor = tensor.detach().cpu()
    array: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def _watch(tensor: Any, receive: Callable[[Any], None]) -> None:
    if tensor.requires_grad:
        tensor.register_hook(receive)


def _version(tensor: Any) -> int:
    """Counts what was written into a tensor in place."""
    return int(tensor._version)
