"""The learning rate as a closed form of the step, with the float32 values of mindspore-ai/models YOLOv3.

The rate that is logged is the rate that was used: `lr_at(step)` takes the step since the start of training. The
originals print `lr[step within the epoch]`, so their logs repeat the first epoch's rates for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from portdet.config import OptimConfig
from portdet.errors import PortdetError


@dataclass(frozen=True)
class Schedule:
    """Learning rates of a training of `epochs * steps_per_epoch` steps.

    Warm-up is linear: base * (i + 1) / W for i < W = int(warmup_epochs * steps_per_epoch). After it:
    'exponential' multiplies by gamma at each milestone epoch (one that lies inside the warm-up is skipped, one that is
    listed twice counts twice); 'cosine_annealing' is a staircase by epoch, counted from 0 with warm-up included, with
    half period max(t_max, epochs); 'constant' keeps the base.
    """

    base: float
    kind: str
    epochs: int
    steps_per_epoch: int
    warmup_epochs: float = 0.0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    eta_min: float = 0.0
    t_max: int = 0

    def __post_init__(self) -> None:
        if self.steps_per_epoch < 1:
            raise PortdetError(
                f"an epoch has {self.steps_per_epoch} steps", fix="the training set is smaller than data.batch"
            )
        if self.kind not in ("constant", "exponential", "cosine_annealing"):
            raise PortdetError(f"unknown schedule '{self.kind}'", fix="constant, exponential or cosine_annealing")

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @property
    def warmup_steps(self) -> int:
        return int(self.warmup_epochs * self.steps_per_epoch)

    def lr_at(self, step: int) -> float:
        """Learning rate of `step`, counted from 0 over the whole training; a float32 value."""
        if not 0 <= step < self.total_steps:
            raise PortdetError(f"no learning rate for step {step}: the schedule has {self.total_steps} steps")
        return float(np.float32(self._exact(step)))

    def table(self) -> NDArray[np.float32]:
        """All rates, (epochs * steps_per_epoch,) float32."""
        return np.array([self._exact(step) for step in range(self.total_steps)], np.float32)

    def _exact(self, step: int) -> float:
        if step < self.warmup_steps:
            return self.base / self.warmup_steps * (step + 1)
        if self.kind == "exponential":
            passed = [m for m in self.milestones if self.warmup_steps <= m * self.steps_per_epoch <= step]
            return self.base * self.gamma ** len(passed)
        if self.kind == "cosine_annealing":
            phase = math.pi * (step // self.steps_per_epoch) / max(self.t_max, self.epochs)
            return self.eta_min + (self.base - self.eta_min) * (1 + math.cos(phase)) / 2
        return self.base


def schedule(config: OptimConfig, *, epochs: int, steps_per_epoch: int) -> Schedule:
    """The schedule that the `optim` section describes."""
    return Schedule(
        base=config.lr0,
        kind=config.schedule,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        warmup_epochs=config.warmup_epochs,
        milestones=tuple(config.lr_epochs),
        gamma=config.lr_gamma,
        eta_min=config.eta_min,
        t_max=config.t_max,
    )
