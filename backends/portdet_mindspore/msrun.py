"""msrun on this interpreter, with rank 0's output and nothing else: `python -m portdet_mindspore.msrun ...`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import TextIO

from portdet_mindspore.process import prepare

CHATTER = "[INFO] DISTRIBUTED("  # of MindSpore's sockets at their end, whatever GLOG_v says
WAIT = 0.2  # seconds between two looks into the log


def main() -> None:
    """msrun and what it starts print on stderr here; SIGTERM ends the ranks as Ctrl-C does."""
    prepare()
    from mindspore.parallel.cluster.run import get_args, run

    arguments = get_args()
    arguments.tail_worker_log = str(arguments.worker_num)  # of no rank: `tail -f` is killed with the last lines unread
    os.environ["PATH"] = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", "")))  # `python`
    os.environ["PYTHONUNBUFFERED"] = "1"  # a log is no terminal
    logs = Path(arguments.log_dir)
    for old in logs.glob("worker_*.log"):
        old.unlink()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    done = threading.Event()
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        reader = threading.Thread(target=follow, args=(logs / "worker_0.log", out, done))
        reader.start()
        try:
            run(arguments)
        finally:
            done.set()
            reader.join()


def follow(log: Path, out: TextIO, done: threading.Event) -> None:
    """Copy a growing file's lines until `done`, and then the rest of it."""
    part, last = "", False
    while not log.exists() and not done.wait(WAIT):
        pass
    if not log.exists():
        return
    with log.open(encoding="utf-8", errors="replace") as stream:
        while not last:
            last = done.wait(WAIT)
            *lines, part = (part + stream.read()).split("\n")
            if last and part:
                lines.append(part)
            out.writelines(f"{line}\n" for line in lines if not line.startswith(CHATTER))
            out.flush()


if __name__ == "__main__":
    main()
