"""What a run says while it trains: a live line with the time left on a terminal, plain lines everywhere else.

    epoch 3/12  step 20/32  loss 84.31  xy 3.1  wh 1.2  41.0 images/s  1.3 GB  ETA 2 min 10 s

In a data-parallel run only rank 0 speaks.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TextIO

import psutil

from portdet.console import cell, console
from portdet.errors import plain_lines


def duration(seconds: float) -> str:
    """0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


@contextmanager
def _perhaps_unseen() -> Iterator[None]:
    """A terminal that has closed ends nothing: the signal that came with it stops the run, with all saved."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise


class Progress:
    """Progress of a training run of `epochs` epochs of `steps` steps, resumed after `start_epoch` of them.

    On a terminal one live line is redrawn at most ten times a second; elsewhere a line is written every `log_every`
    steps and at the end of an epoch. `rank` other than 0 says nothing. Use as a context manager.
    """

    def __init__(
        self,
        epochs: int,
        steps: int,
        *,
        batch: int,
        log_every: int = 10,
        start_epoch: int = 0,
        rank: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.epochs, self.steps, self.batch, self.log_every = epochs, steps, batch, log_every
        self._stream, self._clock, self._speaks = stream or sys.stdout, clock, rank == 0
        self._first = self._done = start_epoch * steps
        self._began = self._marked = clock()
        self._paused, self._marked_done, self._rate = 0.0, self._done, 0.0
        self._process = psutil.Process()
        self._live: Any = None

    def __enter__(self) -> Self:
        self._began = self._marked = self._clock()
        if self._speaks and self._stream.isatty():
            from rich.live import Live

            self._live = Live(console=console(self._stream), refresh_per_second=10, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            with _perhaps_unseen():
                self._live.stop()

    @property
    def images_per_s(self) -> float:
        """Training images per second since the start, validation left out."""
        spent = self._clock() - self._began - self._paused
        return (self._done - self._first) * self.batch / spent if spent > 0 else 0.0

    def step(self, epoch: int, step: int, losses: Mapping[str, float]) -> None:
        """Step `step` (from 1) of epoch `epoch` (from 1) is done."""
        self._done = (epoch - 1) * self.steps + step
        if not self._speaks:
            return
        if self._live:
            self._live.update(self._text(self.line(epoch, step, losses)))
        elif step % self.log_every == 0 or step == self.steps:
            self._write(self.line(epoch, step, losses))

    def note(self, text: str) -> None:
        """A line that stays: the scores of an epoch, a warning, a file that was written."""
        if self._live:
            with _perhaps_unseen():
                self._live.console.print(self._text(text))
        elif self._speaks:
            self._write(text)

    def validation(self) -> Validation:
        """A context whose time counts for the time left, but not for images per second."""
        return Validation(self)

    def line(self, epoch: int, step: int, losses: Mapping[str, float]) -> str:
        """The line itself: epoch, step, losses ('loss' first), speed, memory of this process, time left."""
        ordered = sorted(losses.items(), key=lambda item: item[0] != "loss")
        memory = self._process.memory_info().rss / 2**30
        words = [
            f"epoch {epoch}/{self.epochs}",
            f"step {step}/{self.steps}",
            *(f"{name} {value:.4g}" for name, value in ordered),
            f"{self._recent():.1f} images/s",
            f"{memory:.1f} GB",
            f"ETA {duration(self.left())}",
        ]
        return "  ".join(words)

    def left(self) -> float:
        """Seconds left: the time so far, validation included, per step done."""
        done = self._done - self._first
        return (self._clock() - self._began) / done * (self.epochs * self.steps - self._done) if done else 0.0

    def _recent(self) -> float:
        """Images per second since about a second ago, so that a slow first step is soon forgotten."""
        now = self._clock()
        if now - self._marked >= 1.0 or not self._rate:
            spent = now - self._marked
            self._rate = (self._done - self._marked_done) * self.batch / spent if spent > 0 else 0.0
            self._marked, self._marked_done = now, self._done
        return self._rate

    def _write(self, text: str) -> None:
        with _perhaps_unseen():
            print(plain_lines(text), file=self._stream, flush=True)

    @staticmethod
    def _text(text: str) -> Any:
        return cell(text)


class Validation:
    """See `Progress.validation`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __enter__(self) -> None:
        self._start = self._progress._clock()

    def __exit__(self, *_: object) -> None:
        spent = self._progress._clock() - self._start
        self._progress._paused += spent
        self._progress._marked += spent
