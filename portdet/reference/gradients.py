"""Gradients of a graph by central differences: slow, and independent of anybody's autograd."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portdet.ir.graph import ModuleGraph
from portdet.reference.run import Array, run


def gradients(
    graph: ModuleGraph,
    method: str,
    training: bool,
    weights: Mapping[str, Array],
    inputs: Mapping[str, Array],
    scalar: Callable[[Any], Any],
    chosen: Mapping[str, Sequence[int]],
    *,
    step: float = 1e-5,
) -> dict[str, NDArray[np.float64]]:
    """d scalar(outputs) / d element, for the chosen flat indices of each weight or input, in float64.

    `scalar` takes a number from the method's outputs, as in `lambda out: out["loss"]`. The error is about step^2 and
    1e-16 / step, each relative to the loss; nothing holds at kinks (ReLU at zero, floor). The graph's stop_gradient
    stops nothing here: its values move with the weights, so choose elements or inputs that it does not touch.
    """
    found = {}
    for name, indices in chosen.items():
        slopes = []
        for index in indices:
            moved = [_moved(weights, inputs, name, index, sign * step) for sign in (1, -1)]
            up, down = (float(scalar(run(graph, method, training, w, x)[0])) for w, x in moved)
            slopes.append((up - down) / (2 * step))
        found[name] = np.array(slopes)
    return found


def _moved(
    weights: Mapping[str, Array], inputs: Mapping[str, Array], name: str, index: int, by: float
) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    """Weights and inputs, with one element of one of them moved."""
    source = weights if name in weights else inputs
    array = np.array(source[name], np.float64)
    array.reshape(-1)[index] += by
    changed = {**source, name: array}
    return (changed, inputs) if name in weights else (weights, changed)
