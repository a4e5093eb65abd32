"""Stop between two steps: Ctrl-C and SIGTERM ask, a second one insists."""

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


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM is a KeyboardInterrupt in this block: what it has started is ended on its way out."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StopRequest:
    """In its `with` block the first SIGINT or SIGTERM sets `signal_name`, the second raises KeyboardInterrupt.

    echo: seconds in which further signals are taken for the first; a launcher passes on what the terminal sends to all.
    """

    def __init__(self, echo: float = 0.0) -> None:
        self.signal_name, self.echo, self._asked = "", echo, 0.0
        self._previous: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        return bool(self.signal_name)

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python forbids handlers
            for number in (signal.SIGINT, signal.SIGTERM):
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
