"""Functions as graphs.

A graph of `ms.jit` runs behind PyNative's queue, and whoever reads a result spins until it is there: on 2 cores, one of
them is lost to the kernels (YOLOv3, batch 2, 320 px: 3.2 s a step, against 2.0 s of the same graph as a cell in graph
mode, which waits asleep; MindSpore 2.10). So compiled functions are cells in graph mode.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
from mindspore import nn


class Graph(nn.Cell):  # type: ignore[misc]  # mindspore has no types
    """A function as a cell."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def construct(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a graph. The process is in graph mode while it runs: elsewhere a cell is called op by op."""
    graph = Graph(function)

    def run(*inputs: Any) -> Any:
        ms.set_context(mode=ms.GRAPH_MODE)
        try:
            return graph(*inputs)
        finally:
            ms.set_context(mode=ms.PYNATIVE_MODE)

    return run
