"""What hooks see becomes named tensors: the part of them that no framework is needed for.

A backend's `hooks.py` registers `Collector.seen` on every module. A module that is called again gets '@2', '@3'; of a
tuple or a mapping every tensor gets its place in brackets: 'forward/neck[1]', 'forward/head@2[boxes]'.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
Put = Callable[[str, Array], None]


class Collector:
    """Hands every tensor that modules return to `put`, as 'forward/<path>', and its gradient as 'grad/<path>'.

    put: gets copies, in order of appearance (`DumpWriter.put`, or `dict.__setitem__` of one). kind: the framework's
    tensor. to_numpy: a copy of one. watch(tensor, receive): calls `receive` with the tensor's gradient in the backward
    pass; None: gradients are not collected.
    """

    def __init__(
        self,
        put: Put,
        kind: type,
        to_numpy: Callable[[Any], Array],
        watch: Callable[[Any, Callable[[Any], None]], None] | None = None,
    ) -> None:
        self.put, self.kind, self.to_numpy, self.watch = put, kind, to_numpy, watch
        self.calls: Counter[str] = Counter()

    def hook(self, path: str) -> Callable[[Any, Any, Any], None]:
        """A forward hook (module, inputs, output) for the module at `path`; it changes nothing."""

        def seen(_module: Any, _inputs: Any, output: Any) -> None:
            self.calls[path] += 1
            call = f"{path}@{self.calls[path]}" if self.calls[path] > 1 else path
            for name, tensor in tensors(output, call, self.kind):
                self.put(f"forward/{name}", self.to_numpy(tensor))
                if self.watch:
                    self.watch(tensor, self._receiver(f"grad/{name}"))

        return seen

    def _receiver(self, name: str) -> Callable[[Any], None]:
        def receive(gradient: Any) -> None:
            self.put(name, self.to_numpy(gradient))

        return receive


def tensors(output: Any, name: str, kind: type) -> Iterator[tuple[str, Any]]:
    """The tensors in what a module returned, with their names; anything else is left out."""
    if isinstance(output, kind):
        yield name, output
    elif isinstance(output, Mapping):
        for key, item in output.items():
            yield from tensors(item, f"{name}[{key}]", kind)
    elif isinstance(output, list | tuple):
        for index, item in enumerate(output):
            yield from tensors(item, f"{name}[{index}]", kind)
