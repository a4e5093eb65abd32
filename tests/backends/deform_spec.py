"""A module around one deformable convolution: written as a file, as a spec has to be."""

from __future__ import annotations

from typing import Any

import numpy as np

from portdet.ir.graph import ModuleGraph
from portdet.ir.trace import graph
from portdet.session import Arrays
from portdet.spec import DeformConv2d, Module

FORMS = ("native", "composed")
CASES = {"moved": 2, "unmoved": 1}
"""Name -> stride. 'moved': offsets of up to 2.5, over all sides of the image; 'unmoved': zero, as at the start."""


class Net(Module):
    """What is measured."""

    def __init__(self, stride: int, composed: bool) -> None:
        self.deform = DeformConv2d(2, 3, 3, stride, composed=composed)

    def loss(self, x: Any, offset: Any, mask: Any) -> dict[str, Any]:
        """The convolution itself."""
        return {"y": self.deform(x, offset, mask)}


def inputs(case: str) -> Arrays:
    """x, offset, mask and, to weigh the output with, cotangent; floats are float32 values."""
    random = np.random.default_rng(0)
    size = (5, 6) if case == "moved" else (3, 3)
    drawn = {
        "x": random.uniform(-1, 1, (2, 2, *size)),
        "offset": random.uniform(-2.5, 2.5, (2, 18, 3, 3)) * (case == "moved"),
        "mask": random.uniform(0.2, 1, (2, 9, 3, 3)),
        "cotangent": random.uniform(0.5, 1.5, (2, 3, 3, 3)),
    }
    return {name: array.astype(np.float32) for name, array in drawn.items()}


def weight() -> Arrays:
    """The weight by its canonical name, which is also the frameworks'."""
    drawn = np.random.default_rng(1).uniform(-1, 1, (3, 2, 3, 3))
    return {"deform.conv.weight": drawn.astype(np.float32)}


def traced(case: str, form: str) -> ModuleGraph:
    """The graph of one case in one form."""
    types = {name: (array.shape, "float") for name, array in inputs(case).items() if name != "cotangent"}
    return graph(Net(CASES[case], form == "composed"), {"loss": (True, types)})  # type: ignore[dict-item]
