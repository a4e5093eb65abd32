"""A rank ends when the one who started its launcher has ended, buried or not."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from tests.patience import ROOT, running, until

WAITS = "print(flush=True); input()"
RANK = """
import os, sys
from portdet.cli.launch import _end_with
print(flush=True)
_end_with(os.getppid(), int(sys.argv[1]))
"""


def started(script: str, *words: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "backends", ROOT / "weights_convert")))
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.parametrize("buried", [True, False])
def test_a_rank_ends_with_its_starter(buried: bool) -> None:
    """Here this process is the launcher: it lives on."""
    with started(WAITS) as starter, started(RANK, str(starter.pid)) as rank:
        assert running(rank.pid)
        starter.kill()
        if buried:
            starter.wait()
        else:
            until(lambda: psutil.Process(starter.pid).status() == psutil.STATUS_ZOMBIE, "a zombie")
        try:
            until(lambda: not running(rank.pid), "the end of the rank")
        finally:
            rank.kill()
