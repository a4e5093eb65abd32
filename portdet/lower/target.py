"""What a backend's table holds: words of its classes, a text for each op and each leaf layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from portdet.ir.graph import ModuleGraph
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


Native = Callable[[Attrs, Sequence[str]], list[str]]
"""The statements of a module's forward, from its constructor's arguments and the names of its inputs."""


@dataclass(frozen=True)
class Target:
    """A framework's words."""

    name: str
    header: str  # import lines
    base: str  # nn.Module
    forward: str  # name of the forward method
    sequential: str  # nn.Sequential, called with modules as arguments
    ops: Mapping[str, OpText]
    layers: Mapping[str, Layer]
    natives: Mapping[str, Native] = field(default_factory=dict)  # modules whose forward the framework has a kernel for
    reserved: frozenset[str] = field(default_factory=frozenset)  # names that the header binds
    helpers: Mapping[str, str] = field(default_factory=dict)  # name -> its definition, written where a text calls it

    def native(self, module: ModuleGraph) -> Native | None:
        """The text that replaces the module's forward; None where there is none or the module asks for its own."""
        return None if module.config.get("composed") else self.natives.get(module.class_name)

    def needed(self, text: str) -> list[str]:
        """The definitions of the helpers that the text calls, and of those that these call, in the table's order."""
        called: set[str] = set()
        queue = [text]
        while queue:
            words = set(re.findall(r"\b(\w+)\(", queue.pop()))
            fresh = {name for name in self.helpers if name in words} - called
            called |= fresh
            queue += [self.helpers[name] for name in fresh]
        return [self.helpers[name] for name in self.helpers if name in called]

    def native_name(self, layer: str, leaf: str) -> str:
        """The framework's name of a leaf layer's weight."""
        return self.layers[layer].names[leaf]
