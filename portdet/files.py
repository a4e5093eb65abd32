"""Outputs appear whole or not at all: written beside their place under a temporary name, synced, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from portdet.errors import PortdetError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path (same folder, same suffix) to write; at the end it takes the place of `path`.

    On any error, a full disk or an interrupt the old file stays as it was and the temporary one is removed. A symlink
    stays one: the file it leads to is replaced. Raises `PortdetError` where the disk or folder refuses.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
    try:
        if target.is_dir():
            raise PortdetError("is a folder", where=str(path), fix="name the file to write")
        if target.exists() and not target.is_file():  # a rename would put a file in the place of /dev/null
            raise PortdetError("is no regular file", where=str(path), fix="name the file to write")
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        sync(temporary)
        temporary.replace(target)
        sync(target.parent)
    except OSError as error:
        raise PortdetError(
            f"cannot be written: {error.strerror or error}",
            where=str(path),
            fix="free space on that disk, or write to another folder; nothing was changed",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def sync(path: Path) -> None:
    """Bring a file or a folder's entries to the disk; file systems that cannot sync a folder do without."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    """`text` as UTF-8 to `path`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
