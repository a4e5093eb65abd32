"""What a backend's table holds: words of its classes, a text for each op and each leaf layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from portdet.lower.text import Args, Attrs

OpText = str | Callable[[Args], str]
"""A template with {0}, {1} for arguments and {name} for attributes, or a function that writes the expression."""


@dataclass(frozen=True)
class Layer:
    """A leaf layer: how it is made, how it is called, and how the framework names its weights.

    `names`: canonical leaf name -> the framework's.
    """

    make: Callable[[Attrs], str]
    names: Mapping[str, str]
    call: Callable[[Attrs, str], str] = lambda _, x: x  # text of the argument that the layer is called with


@dataclass(frozen=True)
class Target:
    """A framework's words. `methods` are ops that every text reaches through its first argument's name."""

    name: str
    header: str  # import lines
    base: str  # nn.Module
    forward: str  # name of the forward method
    sequential: str  # nn.Sequential, called with modules as arguments
    ops: Mapping[str, OpText]
    layers: Mapping[str, Layer]
    reserved: frozenset[str] = field(default_factory=frozenset)  # names that the header binds

    def native_name(self, layer: str, leaf: str) -> str:
        """The framework's name of a leaf layer's weight."""
        return self.layers[layer].names[leaf]
