"""What tests wait for, and for how long. No verdict depends on speed: a test ends when what it waits for is there, and
the guard only ends one that would wait for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
GUARD, SLOW_GUARD = 1200.0, 12_000.0
"""Seconds, for tests of `make test` and for those marked slow: more than ten times what the longest child of each takes
on an idle machine of two cores."""


def until(true: Callable[[], object], what: str, pause: float = 0.05) -> None:
    """Wait until it is true; after the guard, fail and say what never happened."""
    end = time.monotonic() + GUARD
    while not true():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(pause)


def running(pid: int) -> bool:
    """Whether a process still runs. One that has ended stays as a zombie until its parent asks, and the parent of an
    orphan may be a container's first process, which never does."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False
