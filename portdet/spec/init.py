"""Initial weights from (seed, path, shape): the same bits for every backend, so that runs start equal."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from portdet.errors import PortdetError
from portdet.ir.graph import ModuleGraph, ParamInfo


def initial_weights(graph: ModuleGraph, seed: int) -> dict[str, NDArray[np.float32]]:
    """Every weight and buffer by canonical name. A weight's values depend on seed and name, not on its neighbours."""
    return {name: _initial(name, info, seed) for name, info in graph.weights().items()}


def _initial(name: str, info: ParamInfo, seed: int) -> NDArray[np.float32]:
    """`conv` and `conv_bias:FAN_IN` are uniform within 1 / sqrt(fan in): He's rule with a = sqrt(5), the default of
    PyTorch and of mindspore-ai/models. `he_normal` is N(0, 2 / fan in), the default of Paddle."""
    kind, _, number = info.init.partition(":")
    if kind in ("zeros", "ones"):
        return np.full(info.shape, float(kind == "ones"), np.float32)
    if kind not in ("conv", "conv_bias", "he_normal"):
        raise PortdetError(
            f"weight '{name}' starts as '{info.init}', which nobody knows", fix="see portdet/spec/init.py"
        )
    fan_in = int(number) if number else int(np.prod(info.shape[1:]))
    word = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, word], np.uint64)))
    if kind == "he_normal":
        return np.asarray(generator.standard_normal(info.shape) * np.sqrt(2 / fan_in), np.float32)
    return np.asarray((generator.random(info.shape) * 2 - 1) / np.sqrt(fan_in), np.float32)
