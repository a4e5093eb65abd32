"""Work that needs a process of its own: frameworks do not stand each other, and a crash must not take us with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from portdet.errors import PortdetError


def run_child(
    module: str, request: Any, *, timeout: float, env: Mapping[str, str] | None = None, log: Path | None = None
) -> Any:
    """Run `python -m module`, hand it `request`, and return its answer, both JSON.

    What the child prints goes to `log`, or is shown in the error. Raises the child's PortdetError, and one of its own
    if it crashes, fails or takes longer than `timeout` seconds.
    """
    with tempfile.TemporaryDirectory(prefix="portdet-") as scratch:
        answer, printed = Path(scratch, "answer.json"), log or Path(scratch, "printed.txt")
        path = os.pathsep.join(entry for entry in sys.path if entry)
        with (
            printed.open("wb") as stream,
            subprocess.Popen(
                [sys.executable, "-m", module, json.dumps(request), str(answer)],
                stdin=subprocess.PIPE,  # closes when this process ends, however that happens
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": path, **(env or {})},
                start_new_session=True,  # so that a timeout ends its loader's workers too
            ) as child,
        ):
            try:
                code = child.wait(timeout)
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


def serve(work: Callable[[Any], Any]) -> None:
    """The child's side: hand the request to `work`, its answer back; a PortdetError is raised again in the parent.

    The child ends when its parent does.
    """
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
