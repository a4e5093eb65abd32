"""One process at a time in a run's folder, and what killed ones left in it.

The lock is the file `.lock` in the folder. The kernel releases it when its holder ends, however that happens; the file
may stay, and says nothing then. It is gone after an orderly end.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from portdet import files, outside
from portdet.console import say
from portdet.errors import PortdetError
from portdet.processes import guard, held, scratch, watch

LOCK = ".lock"
NAMING = 5.0  # seconds in which a process that has just locked a folder is waited for to write who it is
LONGEST_COMMAND = 200  # characters of a command line, in the lock and in the error
_MOST = 4096  # bytes of a lock file

Say = Callable[[str], None]


class Holder(BaseModel):
    """What a lock file says of the process that holds it."""

    model_config = ConfigDict(strict=True, extra="ignore")

    pid: int = Field(gt=0, lt=2**31)
    host: str
    command: str
    since: str


_HOLDER = TypeAdapter(Holder)


def _told(line: str) -> None:
    say(line, err=True)


@contextmanager
def alone_in(folder: Path, say: Say = _told, *, deep: bool = False) -> Iterator[None]:
    """The existing `folder` is this process's own as long as the block lasts, and under guard (see `guard`).

    Raises PortdetError that names the process which has it already. What killed processes left in the folder, its
    `weights` and `ranks` (deep: all below it), and in the system's temporary folder is removed, and said how much.
    """
    handle = _lock(folder, say)
    try:
        _describe(handle)
        with guard.guarding(folder, LOCK):
            clean(folder, say, deep=deep)
            yield
    finally:
        with suppress(OSError):
            if held.is_at(handle, folder / LOCK):
                (folder / LOCK).unlink()
        os.close(handle)


def clean(folder: Path, say: Say, *, deep: bool) -> None:
    """Remove what no living process holds."""
    below = [Path(place) for place, _, _ in os.walk(folder)] if deep else [folder, folder / "weights", folder / "ranks"]
    left, aside = files.sweep(*below), scratch.sweep()
    if left:
        say(f"removed {left} temporary file{'s' * (left > 1)} that killed runs left in {outside.plain(str(folder))}")
    if aside:
        say(f"removed {aside} temporary folder{'s' * (aside > 1)} that killed runs left in {scratch.place()}")


def _lock(folder: Path, say: Say) -> int:
    """The locked descriptor of the folder's lock file."""
    where = outside.plain(str(folder))
    deadline = time.monotonic() + NAMING
    while True:
        try:
            handle = held.open_or_create(folder / LOCK)
            state = held.lock(handle)
        except OSError as error:
            raise PortdetError(
                f"cannot be locked: {error.strerror or error}", where=where, fix="use a folder that you can write to"
            ) from None
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise PortdetError(f"{LOCK} is no regular file", where=where, fix="remove it")
        if state is False:
            os.close(handle)
            holder = _holder(folder)
            if time.monotonic() < deadline and (holder is None or _is_dead(holder)):
                time.sleep(0.02)  # it has been locked this very moment: what it says is as yet of an earlier holder
                continue
            raise _in_use(where, holder)
        if not held.is_at(handle, folder / LOCK):  # its holder took it away when it ended
            os.close(handle)
            continue
        if state is None:
            say(f"{where} is on a file system without locks: a second run in it would not be noticed")
        return handle


def _holder(folder: Path) -> Holder | None:
    """What the lock file says, if it can be read as that."""
    try:
        text = outside.read_text(folder / LOCK, most=_MOST)
        return outside.checked(_HOLDER, outside.parse_json(text, ""), "")
    except PortdetError:
        return None


def _is_dead(holder: Holder) -> bool:
    """Whether the process that is named was one of this machine, and is no more."""
    return holder.host == socket.gethostname() and watch.state(holder.pid) == "dead"


def _in_use(where: str, holder: Holder | None) -> PortdetError:
    if holder is None:
        return PortdetError("is in use by another process", where=where, fix="wait until it ends")
    command = outside.plain(holder.command[:LONGEST_COMMAND])
    host = outside.plain(holder.host[:LONGEST_COMMAND])
    since = outside.plain(holder.since[:LONGEST_COMMAND])
    there = "" if holder.host == socket.gethostname() else f" on {host}"
    return PortdetError(
        f"is in use by process {holder.pid} on {host} since {since}: {command}",
        where=where,
        fix=f"wait until it ends, or stop it{there} (kill {holder.pid}; a training saves its state first)",
    )


def _describe(handle: int) -> None:
    command = shlex.join(sys.orig_argv)
    holder = Holder(
        pid=os.getpid(),
        host=socket.gethostname(),
        command=command if len(command) <= LONGEST_COMMAND else command[: LONGEST_COMMAND - 3] + "...",
        since=time.strftime("%Y-%m-%d %H:%M:%S %z"),
    )
    os.ftruncate(handle, 0)
    os.pwrite(handle, (json.dumps(holder.model_dump()) + "\n").encode(), 0)
