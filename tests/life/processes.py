"""Processes of the tests: started, waited for by what they do and not by the clock, and ended whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.patience import ROOT, running, until

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends", ROOT / "weights_convert"))),
    "OMP_NUM_THREADS": "1",
}


@contextmanager
def start(script: str, *words: object, pass_env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """`python -c script words`, killed at the end of the block."""
    with live([sys.executable, "-c", script, *map(str, words)], pass_env) as process:
        yield process


@contextmanager
def live(command: list[str], pass_env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
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
    until(lambda: sign.exists() or not running(process.pid), f"no {sign}", 0.02)
    if not sign.exists():
        raise AssertionError(f"it ended before {sign.name}: {process.communicate()}")


def waiting(sign: str) -> None:
    """A process that lives until it is killed."""
    Path(sign).write_text("")
    time.sleep(600)
