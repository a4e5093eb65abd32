"""A value that never ends, in every place of every pickle that is read: an error or a success, in little time.

All in one child process with 3 GB of address space and ten minutes of processor time, of which it takes less than one:
a value that is printed, compared, hashed or walked through takes 2^60 steps.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.convert import bombs
from tests.patience import SLOW_GUARD

ROOT = Path(__file__).parents[2]
# Those that end never; the others are of a wrong type, or merely large.
ENDLESS = ("tuples", "lists", "dictionaries", "an object whose arguments are lists", "a list in itself")

CHILD = """
import contextlib, io, os, resource, sys
from pathlib import Path
from click.testing import CliRunner
from portdet.cli.__main__ import run
from portdet.errors import PortdetError
from portdet_convert import load_canonical, open_weights
from portdet_convert.weights_command import weights
from tests.convert.bombs import files

resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (600, 600))
chosen = sys.argv[1].split("|")
for name, data in files():
    if not name.startswith("good") and not any(f": {bomb} at " in name for bomb in chosen):
        continue
    print(f"> {name}", flush=True)
    path = Path("w")
    path.write_bytes(data)
    errors = []
    for use in (open_weights, lambda path: load_canonical(path, {"w": (2, 2)})):
        try:
            use(path)
        except PortdetError as error:
            errors.append(str(error))
    for words in (["weights", "show", "w"], ["convert", "w", "-o", "out.npz"]) if len(errors) < 2 else ():
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            assert run(words) in (0, 1)
        errors.append(said.getvalue())
    assert all(len(error) < 2000 for error in errors[:2]), errors
    assert all(line.isprintable() for error in errors for line in error.splitlines()), errors
    print("refused" if len(errors) == 2 else "read", flush=True)
"""


def outcomes(folder: Path, chosen: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(case, what became of it) in the child; the last is '' where it died."""
    paths = [str(ROOT / name) for name in (".", "weights_convert")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "|".join(chosen)], cwd=folder, env=env,
        capture_output=True, text=True, timeout=SLOW_GUARD, check=False,
    )  # fmt: skip
    name = ""
    for line in done.stdout.splitlines():
        if line.startswith("> "):
            name = line[2:]
        else:
            yield name, line
    if done.returncode:
        yield name, f"died with {done.returncode}: {done.stderr[-1500:]}"


def check(folder: Path, chosen: tuple[str, ...]) -> None:
    found = dict(outcomes(folder, chosen))
    wrong = {name: what for name, what in found.items() if what not in ("read", "refused")}
    assert not wrong
    assert {what for name, what in found.items() if name.startswith("good")} == {"read"}
    for bomb in chosen:
        of_bomb = [what for name, what in found.items() if f": {bomb} at " in name]
        assert len(of_bomb) > 500, bomb
        assert "refused" in of_bomb, bomb
    assert "ran" not in os.listdir(folder)


def test_endless_values_in_every_place(tmp_path: Path) -> None:
    check(tmp_path, ENDLESS)


@pytest.mark.slow
def test_values_of_every_kind_in_every_place(tmp_path: Path) -> None:
    check(tmp_path, tuple(bomb for bomb in bombs.BOMBS if bomb not in ENDLESS))
