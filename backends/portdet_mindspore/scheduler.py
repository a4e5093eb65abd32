"""The process that msrun starts beside the ranks, on the same command."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from typing import NoReturn

import psutil  # mindspore needs it too

from portdet_mindspore.process import prepare

GRACE = 5.0  # seconds that ranks get to appear, and that the scheduler gets to notice their end by itself


def serve() -> NoReturn:
    """Let the ranks find each other; this process ends after them, as one with or without an error.

    MindSpore's scheduler misses ranks that were killed for 30 s, and msrun waits for it. It holds the interpreter's
    lock all the time, so it is a process of its own that this one watches and ends.
    """
    prepare()
    launcher = psutil.Process(os.getppid())
    # ranks that were started by hand may have other parents
    watched = any(word.endswith(("msrun", "mindspore.parallel.cluster.run")) for word in launcher.cmdline())
    with subprocess.Popen([sys.executable, "-m", __name__]) as process:
        alone_since = time.monotonic()
        while process.poll() is None:
            time.sleep(0.2)
            if not watched or _ranks(launcher):
                alone_since = time.monotonic()
            elif time.monotonic() > alone_since + GRACE:
                process.kill()
    raise SystemExit(abs(process.returncode))


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
