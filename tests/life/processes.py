"""Processes of the tests: started, waited for by what they do and not by the clock, and ended whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from portdet.watch import state

ROOT = Path(__file__).parents[2]
GUARD = 300.0  # seconds after which a test gives up; nothing is judged by it

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends", ROOT / "weights_convert"))),
    "OMP_NUM_THREADS": "1",
}


def until(true: Callable[[], Any], what: str = "") -> None:
    """Wait for something to happen."""
    end = time.monotonic() + GUARD
    while not true():
        assert time.monotonic() < end, what or "it did not happen"
        time.sleep(0.02)


@contextmanager
def start(script: str, *words: object, pass_env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """`python -c script words`, killed at the end of the block."""
    with running([sys.executable, "-c", script, *map(str, words)], pass_env) as process:
        yield process


@contextmanager
def running(command: list[str], pass_env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A command with its output in pipes; it and what it started are killed at the end of the block."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**ENVIRONMENT, **(pass_env or {})}, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def began(process: subprocess.Popen[str], sign: Path) -> None:
    """Wait for a file that the process makes."""
    end = time.monotonic() + GUARD
    while not sign.exists():
        if state(process.pid) == "dead":
            raise AssertionError(f"it ended before {sign.name}: {process.communicate()}")
        assert time.monotonic() < end, f"no {sign}"
        time.sleep(0.02)


def waiting(sign: str) -> None:
    """A process that lives until it is killed."""
    Path(sign).write_text("")
    time.sleep(600)
