"""Waiting for another process, not in silence: which one, what it is doing, and until when.

A process that is merely slow (a cold disk, a compilation) is waited for as long as it takes, with a line every `SILENT`
seconds. One that somebody has stopped (SIGSTOP, Ctrl-Z, a debugger) does nothing by itself: after `STOPPED` seconds
the one who waits ends, with its state saved. Time in which the waiting process was itself stopped does not count.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

from portdet.errors import PortdetError

SILENT = 60.0  # seconds without a sign of life before a line says so, and between two such lines
STOPPED = 300.0  # seconds that a stopped process is waited for
TICK = 0.5  # seconds between two looks

_WORDS = {
    psutil.STATUS_STOPPED: "stopped",
    psutil.STATUS_TRACING_STOP: "stopped",
    psutil.STATUS_ZOMBIE: "dead",
    psutil.STATUS_DEAD: "dead",
    psutil.STATUS_DISK_SLEEP: "waiting for a disk",
    psutil.STATUS_RUNNING: "running",
}


def state(pid: int) -> str:
    """'running', 'asleep', 'waiting for a disk', 'stopped', or 'dead': gone, or a zombie that nobody has buried."""
    try:
        return _WORDS.get(psutil.Process(pid).status(), "asleep")
    except psutil.NoSuchProcess:
        return "dead"
    except psutil.Error:
        return "hidden"


@contextmanager
def watching(what: str, pid: int, say: Callable[[str], None]) -> Iterator[None]:
    """As long as the block lasts, `say` is told when process `pid` is stopped, for as long as it is."""
    over = threading.Event()

    def look() -> None:
        silence = Silence(what, pid, say)
        while not over.wait(TICK):
            if state(pid) == "stopped":
                with suppress(PortdetError):  # nothing is ended from here
                    silence.tick()
            else:
                silence.heard()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Silence:
    """How long process `pid` has been waited for; `tick` at least every few `TICK`s. `what`: it in words."""

    def __init__(self, what: str, pid: int, say: Callable[[str], None]) -> None:
        self.what, self.pid, self.say = what, pid, say
        self.heard()

    def heard(self) -> None:
        """A sign of life: all is counted anew."""
        self.seconds = self.stopped = 0.0
        self._told = 0
        self._last = time.monotonic()

    def tick(self) -> None:
        """Say a line where it is due. Raises PortdetError when the process has been stopped for too long."""
        now = time.monotonic()
        passed, self._last = min(now - self._last, 4 * TICK), now
        found = state(self.pid)
        self.seconds += passed
        self.stopped = self.stopped + passed if found == "stopped" else 0.0
        if self.seconds >= SILENT * (self._told + 1):
            self._told += 1
            advice = f"; kill -CONT {self.pid} lets it go on" if found == "stopped" else ""
            who = f"{self.what} (process {self.pid}, {found})"
            self.say(f"{who} has given no sign of life for {self.seconds:.0f} s{advice}")
        if self.stopped >= STOPPED:
            raise PortdetError(
                f"{self.what} (process {self.pid}) has been stopped for {self.stopped:.0f} s",
                fix=f"find out who stopped it: SIGSTOP, Ctrl-Z, a debugger (kill -CONT {self.pid} would continue it)",
            )
