"""The command line as somebody who may not write everywhere, whoever runs the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.patience import GUARD, ROOT

_RUN = """
import ctypes, os, sys
if os.geteuid() == 0:  # without its capabilities root is refused what a file's mode refuses its owner
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()):  # version 3 of the kernel's layout
        raise OSError(ctypes.get_errno(), "capset")
from portdet.cli.__main__ import run
sys.exit(run(sys.argv[1:]))
"""


def portdet(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """`portdet words...` in `folder`, with the rights that modes give to the owner of its files and nothing more."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "backends", ROOT / "weights_convert")))
    return subprocess.run(
        [sys.executable, "-c", _RUN, *words], cwd=folder, capture_output=True, text=True, timeout=GUARD, check=False,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
