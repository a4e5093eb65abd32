"""Exponential moving averages of the weights, by the names and numbers of the systems that use them.

Everything is a closed form of the number of updates, so the backend only computes
shadow = d * shadow + (1 - d) * weights, over all weights and BN statistics, and a resumed run needs one counter.

| kind | update u = 0, 1, ... uses d = | shadow starts as | evaluated as |
|---|---|---|---|
| constant (Keras, mmengine) | decay | the weights | shadow |
| exponential (YOLOv5, YOLOX, MindYOLO) | decay * (1 - exp(-(u + 1) / tau)) | the weights | shadow |
| threshold (PaddleDetection 2.4) | min(decay, (1 + u) / (10 + u)) | zero | shadow / (1 - d_last ** updates) |
| threshold_exact | the same | zero | shadow / (1 - the product of all d) |

PaddleDetection's correction assumes a constant decay. With its ramp the shadow lacks almost nothing after ten updates,
so every evaluated tensor is too large, by 1.00013 after 714 updates. It is kept, because published figures contain it;
threshold_exact divides by the weight that the shadow really holds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from portdet.config import EmaConfig, EmaKind
from portdet.errors import PortdetError, nearest


@dataclass(frozen=True)
class Ema:
    """One kind of average; `kind` 'none' keeps no shadow."""

    kind: EmaKind = "none"
    max_decay: float = 0.9998
    tau: float = 2000.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(EmaKind):
            raise PortdetError(f"unknown EMA '{self.kind}'", fix=nearest(self.kind, get_args(EmaKind)))

    @property
    def active(self) -> bool:
        return self.kind != "none"

    @property
    def zero_start(self) -> bool:
        """Whether the shadow starts at zero instead of at the weights."""
        return self.kind in ("threshold", "threshold_exact")

    def decay(self, update: int) -> float:
        """d of update number `update`, counted from 0; skipped steps are no updates. 0.0 without an average."""
        match self.kind:
            case "constant":
                return self.max_decay
            case "exponential":
                return self.max_decay * (1 - math.exp(-(update + 1) / self.tau))
            case "threshold" | "threshold_exact":
                return min(self.max_decay, (1 + update) / (10 + update))
            case _:
                return 0.0

    def correction(self, updates: int) -> float:
        """What the shadow is divided by for evaluation after `updates` updates."""
        if not self.zero_start:
            return 1.0
        if updates < 1:
            raise PortdetError("the EMA shadow is still zero: no step has been taken")
        if self.kind == "threshold":
            return float(1 - self.decay(updates - 1) ** updates)
        # the ramp's product is 9! n! / (n + 9)!; the limit is reached where (1 + u) / (10 + u) = decay
        ramp = min(updates, math.ceil(max(0.0, (10 * self.max_decay - 1) / (1 - self.max_decay))))
        return float(1 - self.max_decay ** (updates - ramp) / math.comb(ramp + 9, 9))


def ema(config: EmaConfig) -> Ema:
    """The average that the `ema` section describes."""
    return Ema(config.kind, config.decay, config.tau)


def trace(average: Ema, weights: Iterable[NDArray[Any]], start: NDArray[Any]) -> NDArray[np.float64]:
    """Reference in float64: the evaluated average after each of `weights`, from weights `start`. (steps, *shape)"""
    shadow = np.zeros_like(start, np.float64) if average.zero_start else start.astype(np.float64)
    seen = []
    for update, value in enumerate(weights):
        d = average.decay(update)
        shadow = d * shadow + (1 - d) * value
        seen.append(shadow / average.correction(update + 1))
    return np.array(seen)
