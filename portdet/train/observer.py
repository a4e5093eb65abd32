"""What the loop tells the one who watches; `portdet.report.progress.Progress` is one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Observer(Protocol):
    """Called by the loop in its own thread; must be quick."""

    def step(self, epoch: int, step: int, losses: Mapping[str, float]) -> None:
        """Step `step` (from 1) of epoch `epoch` (from 1) is done."""

    def note(self, text: str) -> None:
        """A line that stays: the scores of an epoch, a skipped step."""

    def validation(self) -> AbstractContextManager[None]:
        """Entered while the model is validated."""


class Silent:
    """Nobody watches."""

    def step(self, epoch: int, step: int, losses: Mapping[str, float]) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def validation(self) -> AbstractContextManager[None]:
        return nullcontext()
