"""Temporary folders of our own in the system's, which a later process can tell from others' and remove.

Each has a marked file inside that its maker holds locked (see `held`): a folder whose maker was killed is found by
`sweep`. One without that file is not ours, whatever its name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from portdet.processes import held

PREFIX = "portdet-"
MARK = ".portdet-scratch"


def place() -> Path:
    """The system's temporary folder."""
    return Path(tempfile.gettempdir())


@contextmanager
def scratch() -> Iterator[Path]:
    """A new private folder, removed at the end of the block with all that is in it."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        handle = held.create(folder / MARK)
        if held.lock(handle) is not False and held.is_at(handle, folder / MARK):
            break
        os.close(handle)  # `sweep` was here between the two
    try:
        yield folder
    finally:
        _remove(folder)
        os.close(handle)


def sweep() -> int:
    """Remove the folders that `scratch` made for processes that are dead; how many."""
    found = 0
    with suppress(OSError):
        for entry in list(os.scandir(place())):
            if not entry.name.startswith(PREFIX) or not entry.is_dir(follow_symlinks=False):
                continue
            if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
                continue
            handle = held.abandoned(Path(entry.path, MARK))
            if handle is not None:
                found += _remove(Path(entry.path))
                os.close(handle)
    return found


def _remove(folder: Path) -> bool:
    """Delete the folder, its mark last: where something of it cannot be deleted, a later `sweep` finds it again."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != MARK:
                os.unlink(entry.path)
        if os.listdir(folder) == [MARK]:
            (folder / MARK).unlink()
        folder.rmdir()
    return not folder.exists()
