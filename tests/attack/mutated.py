"""9,000 spoiled weight files through every command that reads one: a plain error or plausible content, nothing else.

Each batch is one child process with limits on memory and processor time, in which the interpreter itself reports what
is run and opened (`sys.addaudithook`). A child that dies or hangs is a case that did not hold; the next goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.attack.mutations import FORMATS
from tests.attack.outcome import Row

ROOT = Path(__file__).parents[2]
BATCH = 300
GUARD = 3600.0
"""Seconds for a batch that takes some 20; its processor time is limited to 600."""


def attack(count: int) -> list[Row]:
    """One row for each format, of about an equal part of the cases."""
    each = max(1, -(-count // len(FORMATS)))
    return [rows(form, each) for form in FORMATS]


def rows(form: str, count: int, plant: str = "") -> Row:
    """`count` cases of one format. `plant` spoils the reader itself, to show that the attack sees it."""
    wrong: dict[int, str] = {}
    done, start = 0, 0
    while start < count:
        found, end = _batch(form, start, min(start + BATCH, count), plant)
        for number, line in found.items():
            if line:
                wrong[number] = line
        done += end - start
        start = end
    first = f"{form} {min(wrong)}: {wrong[min(wrong)]}" if wrong else ""
    return Row(f"mutated {form}", done, done - len(wrong), first)


def _batch(form: str, start: int, stop: int, plant: str) -> tuple[dict[int, str], int]:
    """What went wrong in each case ('' for nothing), and the case to go on with."""
    paths = [str(ROOT / name) for name in (".", "weights_convert", "backends")]
    env = {
        **os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200",
    }  # fmt: skip
    found: dict[int, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "tests.attack.mutated_child", form, str(start), str(stop), plant]
        try:
            ended = subprocess.run(
                words, cwd=folder, env=env, capture_output=True, text=True, errors="replace", timeout=GUARD, check=False
            )
            out, code = ended.stdout, f"ended with {ended.returncode}: {ended.stderr[-800:]}"
        except subprocess.TimeoutExpired as error:
            out, code = (error.stdout or b"").decode(errors="replace"), f"waited for {GUARD:.0f} s"
    for line in out.splitlines():
        if line.startswith("{"):
            said = json.loads(line)
            found[said["case"]] = said["wrong"]
    dead = next((number for number in range(start, stop) if number not in found), None)
    if dead is None:
        return found, stop
    return {**found, dead: f"the process {code}"}, dead + 1
