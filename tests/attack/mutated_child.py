"""A batch of spoiled files, in the working directory: `python -m tests.attack.mutated_child FORMAT FIRST LAST [PLANT]`.

Prints a line of JSON for each case: what was wrong, '' for nothing.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import pickle
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from portdet.cli.__main__ import run
from portdet.errors import PortdetError
from portdet_convert import convert, load_canonical, open_weights, sniff
from portdet_convert.files import MOST_SHARED, WRITERS, pickles
from portdet_convert.files.source import BFLOAT16, LONGEST_NAME, Array, Source
from tests.attack.mutations import FORMATS, case
from tests.convert.test_files_fuzz import LAYERS, SEEDS

MEMORY, SECONDS = 4 << 30, 600
LONGEST_SAID = 4000  # characters of a message
_RUNS = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "subprocess.Popen", "socket.connect",
    "ctypes.dlopen", "pickle.find_class", "shutil.rmtree", "os.putenv", "pty.spawn",
)  # fmt: skip


class Watch:
    """What the interpreter was made to do that reading a file does not need."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.here = os.getcwd()
        self.known = tuple(
            os.path.realpath(path) for path in (sys.prefix, sys.base_prefix, *filter(None, sys.path)) if path
        )
        sys.addaudithook(self.hook)

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        """Called by the interpreter; raises nothing, so that what is attacked goes on as it would."""
        if event in _RUNS or event.startswith("os.exec"):
            self.seen.append(f"{event} {str(args[:1])[:80]}")
        elif event == "exec":
            file = getattr(args[0], "co_filename", "?")
            if not os.path.realpath(file).startswith(self.known) and not file.startswith("<frozen"):
                self.seen.append(f"exec of {file[:80]}")
        elif event == "open" and isinstance(args[0], str) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            place = os.path.realpath(args[0])
            if not place.startswith(self.here) and place != "/dev/null":
                self.seen.append(f"open of {place[:80]} for writing")


def plausible(path: Path) -> str:
    """What is odd about the content of a file that was read, '' for nothing."""
    found = open_weights(path, lambda _: LAYERS)
    if not all(isinstance(name, str) and 0 < len(name) <= LONGEST_NAME for name in found.arrays):
        return "a name that is none"
    if any(array.dtype.kind not in "biufcU" and array.dtype != BFLOAT16 for array in found.arrays.values()):
        return "an array of something else than numbers"
    taken, size = sum(array.nbytes for array in found.arrays.values()), path.stat().st_size
    if found.format != "npz" and taken > MOST_SHARED * size:
        return f"{taken} bytes out of {size}"
    if not all(isinstance(part, str) for pair in found.metadata.items() for part in pair):
        return "remarks that are no text"
    return ""


def said_well(text: str) -> str:
    """What is odd about something printed: a traceback, a terminal's command."""
    if "Traceback" in text or "Warning" in text:
        return f"said {text[:600]}"
    odd = [line for line in text.splitlines() if not line.isprintable()]
    return f"unprintable: {odd[0][:200]!r}" if odd else ""


def commands(path: Path, number: int) -> str:
    """`weights show`, `weights diff` with itself and `convert` on a file."""
    to = sorted(WRITERS)[number % len(WRITERS)]
    words = (
        ["weights", "show", str(path)], ["weights", "show", str(path), "--json"],
        ["convert", str(path), "-o", f"out.{to}", "--allow-nan"], ["weights", "diff", str(path), str(path)],
    )  # fmt: skip
    for one in words:
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = run(one)
        if code not in (0, 1, 3):
            return f"{one[1]} ended with {code}: {said.getvalue()[:300]}"
        if odd := said_well(said.getvalue()):
            return odd
        if one[0] == "convert" and code == 0 and (odd := same(path, Path(f"out.{to}"))):
            return odd
    return ""


def same(path: Path, written: Path) -> str:
    """Whether a conversion that succeeded kept every bit, if it kept the names."""
    before, after = open_weights(path, lambda _: LAYERS).arrays, open_weights(written).arrays
    for name in set(before) & set(after):
        a, b = before[name], after[name]
        if a.shape != b.shape or np.ascontiguousarray(a).astype(b.dtype).tobytes() != b.tobytes():
            return f"{name} came out otherwise"
    return ""


def one(form: str, number: int, watch: Watch) -> str:
    """What went wrong in a case, '' for nothing."""
    what, data = case(form, number)
    path = Path("case")
    path.write_bytes(data)
    uses: tuple[Callable[[], Any], ...] = (
        lambda: sniff(path),
        lambda: plausible(path),
        lambda: convert(path, "plain.npz", allow_nan=True),
        lambda: load_canonical(path, {"conv.weight": (2, 3, 2)}),
        lambda: commands(path, number),
    )
    odd = ""
    for use in uses:
        try:
            found = use()
            odd = odd or (found if use in (uses[1], uses[-1]) else "")
        except PortdetError as error:
            odd = odd or said_well(str(error))
            if len(str(error)) > LONGEST_SAID:
                odd = odd or f"a message of {len(str(error))} characters"
        except BaseException as error:
            odd = odd or f"{type(error).__name__}: {str(error)[:200]}"
    left = [name for name in os.listdir() if name != "case" and not name.startswith(("out.", "plain."))]
    for name in os.listdir():
        os.unlink(name)
    if left:
        odd = odd or f"left behind: {left[:3]}"
    if watch.seen:
        odd = f"it ran something: {watch.seen[0]}"
        watch.seen.clear()
    return f"{what}: {odd}" if odd else ""


def plant(kind: str) -> None:
    """A fault of the reader, for the test of the attack."""
    if kind == "runs code":

        def load(source: Source, start: int, end: int, _: object) -> tuple[Any, int]:
            file = io.BytesIO(bytes(source.data[start:end]))
            return pickle.load(file), start + file.tell()

        patch.object(pickles, "load", load).start()
    elif kind == "dies":
        real = Source.array
        calls = iter(range(10**9))

        def array(source: Source, *args: Any) -> Array:
            if next(calls) == 40:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(source, *args)

        patch.object(Source, "array", array).start()
    elif kind == "traceback":
        patch.object(Source, "named", lambda *args: pytest.fail("planted")).start()
    elif kind == "wrong bits":
        real_view = Source.array

        def flipped(source: Source, *args: Any) -> Array:
            values = real_view(source, *args).copy()
            values.reshape(-1).view(np.uint8)[: next(flips)] ^= 1
            return values

        flips = itertools.cycle((0, 1))
        patch.object(Source, "array", flipped).start()


def warm(path: Path) -> None:
    """Every command on good files of all formats first, so that what is imported late is there."""
    for seed in (name for names in FORMATS.values() for name in names):
        data, build = SEEDS[seed]
        path.write_bytes(build(data))
        for number in range(len(WRITERS)):
            if odd := commands(path, number):
                raise AssertionError(f"{seed}, undamaged: {odd}")
    for name in os.listdir():
        os.unlink(name)


def main(form: str, start: int, stop: int, kind: str) -> None:
    warnings.simplefilter("error")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
    warm(Path("case"))
    plant(kind)
    watch = Watch()
    for number in range(start, stop):
        wrong = one(form, number, watch)
        print(json.dumps({"case": number, "wrong": wrong[:2000]}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else "")
