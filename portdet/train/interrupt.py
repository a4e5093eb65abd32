"""Stop between two steps: Ctrl-C, SIGTERM and a terminal that closes ask, a second signal insists."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from portdet.errors import PortdetError


class Interrupted(PortdetError):
    """The run was asked to stop, and did so with everything saved."""


def asking() -> list[signal.Signals]:
    """The signals that ask to stop. SIGHUP, of a terminal that closes, is not one under `nohup`, which ignores it."""
    hangup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hangup]


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP are a KeyboardInterrupt in this block: what it has started is ended on its way out."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in asking() if number != signal.SIGINT}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopRequest:
    """In its `with` block the first signal of `asking` sets `signal_name`, the second raises KeyboardInterrupt.

    echo: seconds in which further signals are taken for the first; a launcher passes on what the terminal sends to all.
    """

    def __init__(self, echo: float = 0.0) -> None:
        self.signal_name, self.echo, self._asked = "", echo, 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python forbids handlers
            for number in asking():
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.signal_name:
            self.signal_name, self._asked = signal.Signals(number).name, time.monotonic()
        elif time.monotonic() - self._asked >= self.echo:
            raise KeyboardInterrupt
