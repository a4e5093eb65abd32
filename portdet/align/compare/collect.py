"""What hooks see becomes named tensors: the part of them that no framework is needed for.

A backend's `hooks.py` registers `Collector.seen` on every module. A module that is called again gets '@2', '@3'; of a
tuple or a mapping every tensor gets its place in brackets: 'forward/neck[1]', 'forward/head@2[boxes]'.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from portdet.outputs import tensors

Array = NDArray[Any]
Put = Callable[[str, Array], None]


class Collector:
    """Hands every tensor that modules return to `put`, as 'forward/<path>', and its gradient as 'grad/<path>'.

    put: gets copies, in order of appearance (`DumpWriter.put`, or `dict.__setitem__` of one). kind: the framework's
    tensor. to_numpy: a copy of one. watch(tensor, receive): calls `receive` with the tensor's gradient in the backward
    pass; None: gradients are not collected. version(tensor): changes whenever somebody writes into the tensor; with it
    a container that returns what its last part returned costs nothing, if `put` can take a name `again`.
    """

    def __init__(
        self,
        put: Put,
        kind: type,
        to_numpy: Callable[[Any], Array],
        watch: Callable[[Any, Callable[[Any], None]], None] | None = None,
        version: Callable[[Any], int] | None = None,
    ) -> None:
        self.put, self.kind, self.to_numpy, self.watch = put, kind, to_numpy, watch
        self.calls: Counter[str] = Counter()
        self._again: Callable[[str, str], bool] | None = getattr(put, "again", None) if version else None
        self._version = version or id
        self._last: tuple[Any, int, str] = (lambda: None, 0, "")  # the tensor seen last, its version and name

    def hook(self, path: str) -> Callable[[Any, Any, Any], None]:
        """A forward hook (module, inputs, output) for the module at `path`; it changes nothing."""

        def seen(_module: Any, _inputs: Any, output: Any) -> None:
            self.calls[path] += 1
            call = f"{path}@{self.calls[path]}" if self.calls[path] > 1 else path
            for name, tensor in tensors(output, call, self.kind):
                self._hand_over(f"forward/{name}", tensor)
                if self.watch:
                    self.watch(tensor, self._receiver(f"grad/{name}"))

        return seen

    def _receiver(self, name: str) -> Callable[[Any], None]:
        def receive(gradient: Any) -> None:
            self._hand_over(name, gradient)

        return receive

    def _hand_over(self, name: str, tensor: Any) -> None:
        if self._again:
            last, version, before = self._last
            if last() is tensor and version == self._version(tensor) and self._again(name, before):
                return
            self._last = (weakref.ref(tensor), self._version(tensor), name)
        self.put(name, self.to_numpy(tensor))


def reader(put: Put, copy: Callable[[Any], Array], view: Callable[[Any], Array]) -> Callable[[Any], Array]:
    """How `put` wants its arrays: `Sketches` looks at them and keeps none, so that it needs no copy."""
    return view if getattr(put, "views", False) else copy
