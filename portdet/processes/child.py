"""Work that needs a process of its own: frameworks do not stand each other, and a crash must not take us with it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import portdet
from portdet.errors import PortdetError
from portdet.processes import guard
from portdet.processes.scratch import scratch

GRACE = 600.0  # a training ends its step and writes a checkpoint, on a busy machine too


def environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a Python process of ours is started with: `base`, or this process's own, and where modules are looked for.

    That is where this process looks, and never the folder that the child starts in.
    """
    package = str(Path(portdet.__file__).parents[1])
    path = [entry for entry in sys.path if entry]
    path = path if package in path else [package, *path]
    return {**(os.environ if base is None else base), "PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}


def run_child(
    module: str,
    request: Any,
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    base: Mapping[str, str] | None = None,
    log: Path | None = None,
    stop: threading.Event | None = None,
) -> Any:
    """Run `python -m module`, hand it `request`, and return its answer, both JSON.

    Its environment is `base`, or this process's own, with `env` on top. What it prints goes to `log`, or is shown in
    the error. stop: set by another thread, it interrupts the child as Ctrl-C would, which has GRACE seconds to put
    things away, and raises KeyboardInterrupt. Raises the child's PortdetError, and one of its own if it crashes, fails
    or takes longer than `timeout` seconds.
    """
    with scratch() as place:
        answer, printed = place / "answer.json", log or place / "printed.txt"
        with (
            printed.open("wb") as stream,
            subprocess.Popen(
                [sys.executable, "-m", module, json.dumps(request), str(answer)],
                stdin=subprocess.PIPE,  # closes when this process ends, however that happens
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**environment(base), **guard.environment(), **(env or {})},
                start_new_session=True,  # so that a timeout ends its loader's workers too
            ) as child,
        ):
            try:
                code = _wait(child, timeout, stop) if stop else child.wait(timeout)
            except subprocess.TimeoutExpired:
                raise PortdetError(f"{module} did not end within {timeout:g} s{_tail(printed)}") from None
            finally:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
        if code or not answer.is_file():
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            raise PortdetError(f"{module} {how}{_tail(printed)}")
        said = json.loads(answer.read_text(encoding="utf-8"))
    if "what" in said:
        raise PortdetError(**said)
    return said["answer"]


def _wait(child: subprocess.Popen[bytes], timeout: float, stop: threading.Event) -> int:
    """Its exit code; see `run_child`."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(0.2)
        if stop.is_set():
            os.killpg(child.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(GRACE)
            raise KeyboardInterrupt
    raise subprocess.TimeoutExpired(child.args, timeout)


def serve(work: Callable[[Any], Any]) -> None:
    """The child's side: hand the request to `work`, its answer back; a PortdetError is raised again in the parent.

    The child ends when its parent does, and writes no more into a folder of the parent's that has gone.
    """
    guard.inherit()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer = {"answer": work(json.loads(sys.argv[1]))}
    except PortdetError as error:
        answer = {"what": error.what, "fix": error.fix, "where": error.where}
    Path(sys.argv[2]).write_text(json.dumps(answer), encoding="utf-8")


def _end_with_parent() -> None:
    os.read(0, 1)  # not sys.stdin: its lock would be held when the interpreter ends
    os._exit(1)


def _tail(printed: Path) -> str:
    lines = [line for line in printed.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return "; it printed last:\n    " + "\n    ".join(lines[-5:]) if lines else ""
