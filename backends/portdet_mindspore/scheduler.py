"""The process that msrun starts beside the ranks, on the same command."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import psutil  # mindspore needs it too

from portdet_mindspore.process import prepare

APPEAR = 600.0  # seconds that ranks get to appear
LEAVE = 5.0  # seconds that the scheduler gets to notice their end by itself


def serve() -> NoReturn:
    """Let the ranks find each other; this process ends after them, as one with or without an error.

    MindSpore's scheduler misses ranks that were killed for 30 s, and msrun waits for it. It holds the interpreter's
    lock all the time, so it is a process of its own that this one watches and ends.
    """
    prepare()
    launcher = psutil.Process(os.getppid())
    # ranks that were started by hand may have other parents
    watched = any(word.endswith(("msrun", "mindspore.parallel.cluster.run")) for word in launcher.cmdline())
    with subprocess.Popen([sys.executable, "-P", "-m", __name__]) as process:
        raise SystemExit(watch(process, (lambda: _ranks(launcher)) if watched else None))


def watch(process: subprocess.Popen[bytes], ranks: Callable[[], int] | None) -> int:
    """The exit code of a scheduler that has ended; 0 for one that was ended here, as no rank was left: it may be slow
    to notice on a busy machine, and msrun takes each rank's own exit code for what became of it."""
    last, patience = time.monotonic(), APPEAR
    while process.poll() is None:
        time.sleep(0.2)
        if ranks is None:
            continue
        if ranks():
            last, patience = time.monotonic(), LEAVE
        elif time.monotonic() > last + patience:
            process.kill()
            process.wait()
            return 0 if patience == LEAVE else 1
    return abs(int(process.returncode))


def _ranks(launcher: psutil.Process) -> int:
    """How many of the launcher's processes run this process's command, beside this one."""
    own, found = psutil.Process(), 0
    with suppress(psutil.Error):  # the launcher is gone
        for child in launcher.children():
            with suppress(psutil.Error):  # this one is
                alive = child.status() != psutil.STATUS_ZOMBIE
                found += alive and child.pid != own.pid and child.cmdline() == own.cmdline()
    return found


if __name__ == "__main__":
    import mindspore
    from mindspore import communication

    mindspore.set_device("CPU")
    communication.init()  # serves until all ranks have left
