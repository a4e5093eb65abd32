"""How tests see that a process has ended."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

from tests.patience import running, until


def test_a_zombie_has_ended() -> None:
    """Nobody waits for this child, as nobody does for orphans in many a container."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert running(child.pid)
    child.kill()
    until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE, "a zombie")
    os.kill(child.pid, 0)  # which a check by signal takes for a living process
    assert not running(child.pid)
    child.communicate()
    assert not running(child.pid)
