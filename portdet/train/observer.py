"""What the loop tells the one who watches: a progress bar, plain lines, TensorBoard, or nobody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class StepRecord:
    """One step as it was taken: `epoch` and `epoch_step` count from 0, `lr` is the rate that the update used."""

    epoch: int
    epoch_step: int
    step: int
    lr: float
    losses: Mapping[str, float]
    skipped: bool
    skipped_steps: int
    loss_scale: float
    images: int
    size: int


class Observer(Protocol):
    """Called by the loop in its own thread; must be quick."""

    def start_epoch(self, epoch: int, epochs: int, start_step: int, steps: int) -> None: ...

    def step(self, record: StepRecord) -> None: ...

    def validating(self, epoch: int) -> None: ...

    def end_epoch(self, epoch: int, row: Mapping[str, float], best: bool) -> None: ...

    def message(self, text: str) -> None: ...


class Silent:
    """Nobody watches."""

    def start_epoch(self, epoch: int, epochs: int, start_step: int, steps: int) -> None:
        pass

    def step(self, record: StepRecord) -> None:
        pass

    def validating(self, epoch: int) -> None:
        pass

    def end_epoch(self, epoch: int, row: Mapping[str, float], best: bool) -> None:
        pass

    def message(self, text: str) -> None:
        pass
