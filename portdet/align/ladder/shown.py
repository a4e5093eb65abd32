"""Child processes that tell how far they are: the parent shows their lines as they come."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from portdet.processes.child import run_child

Say = Callable[[str], None]
DAY = 24 * 3600.0
ENVIRONMENT = dict(os.environ)
"""As it was before any framework was imported: they set variables that others in child processes would heed."""
_MARK = "> "  # of a line that is meant for a person; frameworks print others


def tell(line: str) -> None:
    """The child's side: a line for whoever waits."""
    print(f"{_MARK}{line}", flush=True)


def run_shown(
    module: str, request: Any, say: Say, log: Path, timeout: float = DAY, stop: threading.Event | None = None
) -> Any:
    """`run_child`, what it tells said as it comes. All that it prints is kept in `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with _following(log, say):
        return run_child(module, request, timeout=timeout, base=ENVIRONMENT, log=log, stop=stop)


@contextmanager
def _following(log: Path, say: Say) -> Iterator[None]:
    ended = threading.Event()

    def follow() -> None:
        read = 0
        while True:
            last = ended.wait(0.2)
            text = log.read_bytes()[read:] if log.exists() else b""
            whole = text if last else text[: text.rfind(b"\n") + 1]
            read += len(whole)
            for line in whole.decode("utf-8", "replace").splitlines():
                if line.startswith(_MARK):
                    say(line.removeprefix(_MARK))
            if last:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
