"""The learning rate as a closed form of the step, with the float32 values of mindspore-ai/models and PaddleDetection.

The rate that is logged is the rate that was used: `lr_at(step)` takes the step since the start of training.
mindspore-ai/models print `lr[step within the epoch]`, so their logs repeat the first epoch's rates for ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from portdet.config import Config, Warmup
from portdet.errors import PortdetError, nearest


@dataclass(frozen=True)
class Schedule:
    """Learning rates of a training of `epochs * steps_per_epoch` steps.

    Warm-up is linear over its first W steps, `warmup_steps` or int(warmup_epochs * steps_per_epoch):
    base * (i + 1) / W ('mindspore') or base * i / W ('ppdet', whose first step moves nothing). After it:
    'exponential' multiplies by gamma at each milestone epoch, twice where it is listed twice; one that lies inside the
    warm-up is skipped ('mindspore') or counts when warm-up is over ('ppdet'); 'cosine_annealing' is a staircase by
    epoch, counted from 0 with warm-up included, with half period max(t_max, epochs); 'constant' keeps the base.
    (PaddleDetection takes gamma / 10**i for the i-th milestone: the same for its 0.1, and for no other gamma.)
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
    warmup_steps: int = 0
    warmup: Warmup = "mindspore"

    def __post_init__(self) -> None:
        if self.steps_per_epoch < 1:
            raise PortdetError(
                f"an epoch has {self.steps_per_epoch} steps", fix="the training set is smaller than data.batch"
            )
        if self.kind not in ("constant", "exponential", "cosine_annealing"):
            raise PortdetError(f"unknown schedule '{self.kind}'", fix="constant, exponential or cosine_annealing")
        if self.warmup not in get_args(Warmup):
            raise PortdetError(f"unknown warm-up '{self.warmup}'", fix=nearest(self.warmup, get_args(Warmup)))
        if self.warmup_steps and self.warmup_epochs:
            raise PortdetError(
                f"warm-up of {self.warmup_steps} steps and of {self.warmup_epochs:g} epochs",
                fix="set one of optim.warmup_steps and optim.warmup_epochs to 0",
            )

    @property
    def total_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @property
    def warm(self) -> int:
        """Steps of warm-up."""
        return self.warmup_steps or int(self.warmup_epochs * self.steps_per_epoch)

    def lr_at(self, step: int) -> float:
        """Learning rate of `step`, counted from 0 over the whole training; a float32 value."""
        if not 0 <= step < self.total_steps:
            raise PortdetError(f"no learning rate for step {step}: the schedule has {self.total_steps} steps")
        return float(np.float32(self._exact(step)))

    def table(self) -> NDArray[np.float32]:
        """All rates, (epochs * steps_per_epoch,) float32."""
        return np.array([self._exact(step) for step in range(self.total_steps)], np.float32)

    def _exact(self, step: int) -> float:
        if step < self.warm:
            return self.base * (step / self.warm) if self.warmup == "ppdet" else self.base / self.warm * (step + 1)
        if self.kind == "exponential":
            first = 0 if self.warmup == "ppdet" else self.warm
            passed = [m for m in self.milestones if first <= m * self.steps_per_epoch <= step]
            return self.base * self.gamma ** len(passed)
        if self.kind == "cosine_annealing":
            phase = math.pi * (step // self.steps_per_epoch) / max(self.t_max, self.epochs)
            return self.eta_min + (self.base - self.eta_min) * (1 + math.cos(phase)) / 2
        return self.base


def base_rate(config: Config) -> float:
    """lr0 for the run's global batch: linear in it where `optim.lr_batch` says what batch lr0 is meant for."""
    optim = config.optim
    return optim.lr0 * config.data.batch / optim.lr_batch if optim.lr_batch else optim.lr0


def schedule(config: Config, steps_per_epoch: int) -> Schedule:
    """The schedule that the configuration describes. Raises `PortdetError` for two lengths of warm-up."""
    optim = config.optim
    return Schedule(
        base=base_rate(config),
        kind=optim.schedule,
        epochs=config.train.epochs,
        steps_per_epoch=steps_per_epoch,
        warmup_epochs=optim.warmup_epochs,
        milestones=tuple(optim.lr_epochs),
        gamma=optim.lr_gamma,
        eta_min=optim.eta_min,
        t_max=optim.t_max,
        warmup_steps=optim.warmup_steps,
        warmup=optim.warmup,
    )


def rate_line(config: Config, planned: Schedule) -> str:
    """'learning rate 0.000416667 (0.01 for batches of 192, here 8), constant after 4 of 90 steps of warm-up'; a warm-up
    that never ends is told by `doubts`."""
    optim, batch = config.optim, config.data.batch
    scaled = f" ({optim.lr0:g} for batches of {optim.lr_batch}, here {batch})" if optim.lr_batch else ""
    if planned.warm >= planned.total_steps:
        return f"learning rate up to {planned.lr_at(planned.total_steps - 1):.6g} of {planned.base:.6g}{scaled}"
    warm = f" after {planned.warm} of {planned.total_steps} steps of warm-up" if planned.warm else ""
    return f"learning rate {planned.base:.6g}{scaled}, {planned.kind}{warm}"


def doubts(planned: Schedule) -> list[str]:
    """What of a schedule never happens, and was hardly meant so, a line each."""
    found, total = [], planned.total_steps
    if planned.warm >= total:
        last = planned.lr_at(total - 1)
        found.append(
            f"the training of {total} steps ends within its warm-up of {planned.warm}: the learning rate rises to "
            f"{last:.6g} of {planned.base:.6g} at most, and '{planned.kind}' never begins; lower "
            "optim.warmup_epochs or optim.warmup_steps, or train longer"
        )
    elif planned.kind == "exponential":
        late = [m for m in planned.milestones if m * planned.steps_per_epoch >= total]
        early = [
            m
            for m in planned.milestones
            if planned.warmup == "mindspore" and m * planned.steps_per_epoch < planned.warm
        ]
        for epochs, why in ((late, f"come after the last of {planned.epochs} epochs"), (early, "lie in the warm-up")):
            if epochs:
                named = ", ".join(map(str, epochs))
                found.append(f"milestones of the learning rate {why} and change nothing: optim.lr_epochs {named}")
    return found
