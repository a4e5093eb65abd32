"""Running Paddle in a process of its own: it must not share one with MindSpore, and its threads are fixed at import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from portdet.session import Arrays
from tests.patience import GUARD

ROOT = Path(__file__).parents[2]

PRELUDE = """
import sys
from pathlib import Path
import numpy as np
from portdet.session import Batch, Group, Options, Recipe, Source, StepValues
from portdet_paddle import BACKEND

def batch(images):
    n = len(images)
    return Batch(images, np.zeros((n, 1, 4), "f4"), np.zeros((n, 1), "i4"), np.zeros((n, 1), bool), np.arange(n))

def open_net(source, recipe, names, mode="eager"):
    source = Source(Path(source).read_text(), Path(source))
    return BACKEND.open_session(source, "Net", recipe, names, Options(mode=mode, threads=1))
"""


def run_python(script: str, folder: Path, *arguments: str, portdet: bool = True) -> str:
    """Run a script in `folder`; its standard output. A failure shows its standard error."""
    code = PRELUDE + script if portdet else script
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'backends'}"}
    environment.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-W", "error:::portdet_paddle", "-c", code, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=GUARD, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def run_for_arrays(script: str, folder: Path, inputs: Arrays) -> Arrays:
    """Run a script that reads `given` (arrays by name) and fills the dict `found` with arrays."""
    np.savez(folder / "given.npz", **inputs)
    head, tail = "given = dict(np.load('given.npz'))\nfound = {}\n", "\nnp.savez('found.npz', **found)\n"
    run_python(head + script + tail, folder)
    return dict(np.load(folder / "found.npz"))
