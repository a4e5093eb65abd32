"""Output that is either complete or absent: a temporary name beside the target, fsync, rename."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from portdet.errors import PortdetError


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A new binary file that takes the place of `path` when the block ends without an error.

    On any error, a full disk or an interrupt the target stays as it was and the temporary file is removed. A
    symlink stays one: the file it leads to is replaced. Raises `PortdetError` where the folder cannot be written to.
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    made = False
    try:
        if target.is_dir():
            raise PortdetError("is a folder", where=str(path), fix="name the file to write")
        with open(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), "w+b") as file:
            made = True
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
        made = False
        _sync_folder(target.parent)
    except OSError as error:
        raise PortdetError(
            f"cannot be written: {error.strerror or error}",
            where=str(path),
            fix="free space on that disk, or write to another folder; nothing was changed",
        ) from error
    finally:
        if made:
            with suppress(OSError):
                part.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; file systems that cannot sync a folder do without."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
