"""Run folders that must stay where they are while this process writes into them.

`alone.alone_in` puts a folder under guard; every write below it is checked first, so that a folder which was deleted,
moved, emptied or replaced is an error at once, and never made anew with half of its files.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from portdet import outside
from portdet.errors import PortdetError

INHERITED = "PORTDET_GUARD"  # environment of child processes: their parents' folders


@dataclass(frozen=True)
class Guarded:
    """A folder by its absolute path, and device and number of the file `mark` in it."""

    folder: str
    mark: str
    device: int
    number: int

    def check(self) -> None:
        """Raise PortdetError unless the folder and its mark are where they were."""
        try:
            about = os.lstat(os.path.join(self.folder, self.mark))
            if (about.st_dev, about.st_ino) == (self.device, self.number):
                return
        except OSError:
            pass
        raise PortdetError(
            "this folder was deleted, moved or replaced while it was written into; nothing more is written",
            where=outside.plain(self.folder),
            fix="if it was moved, move it back (or go on from its new place) with --resume; else start anew",
        )


_guarded: list[Guarded] = []


@contextmanager
def guarding(folder: Path, mark: str) -> Iterator[Guarded]:
    """`folder`, in which the file `mark` is, under guard as long as the block lasts."""
    about = os.lstat(folder / mark)
    one = Guarded(os.path.abspath(folder), mark, about.st_dev, about.st_ino)
    _guarded.append(one)
    try:
        yield one
    finally:
        _guarded.remove(one)


def check(path: str | Path) -> None:
    """Raise PortdetError where `path` is below a guarded folder that is no longer what it was."""
    if not _guarded:
        return
    places = os.path.abspath(path), os.path.realpath(path)
    for one in _guarded:
        if any(place == one.folder or place.startswith(one.folder + os.sep) for place in places):
            one.check()


def environment() -> dict[str, str]:
    """What a child process has to know to check the same folders."""
    return {INHERITED: json.dumps([asdict(one) for one in _guarded])} if _guarded else {}


def inherit() -> None:
    """The child's side: the folders of the parent that started this process are under guard here, too."""
    if INHERITED in os.environ:
        _guarded.extend(Guarded(**one) for one in json.loads(os.environ.pop(INHERITED)))
