"""Outputs appear whole or not at all: written beside their place under a temporary name, synced, then renamed."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from portdet.errors import PortdetError
from portdet.outside import plain


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


def distinct(outputs: Mapping[str, str | Path | None], inputs: Mapping[str, str | Path | None] | None = None) -> None:
    """Every file that a command will write is one of its own: none is a file that it reads, or writes otherwise.

    By identity, not by name: links of both kinds, relative paths, and names that differ in case alone. Keys say what a
    file is (`--report`), and None is no file. To be called before anything is written. Raises `PortdetError`.
    """
    seen = {_identity(path): (what, path) for what, path in (inputs or {}).items() if path is not None}
    for what, path in outputs.items():
        if path is None:
            continue
        key = _identity(path)
        if key in seen:
            other, there = seen[key]
            named = "" if str(there) == str(path) else f" ({plain(str(there))})"
            raise PortdetError(
                f"{what} would overwrite {other}{named}: they are one file",
                where=plain(str(path)),
                fix=f"give {what} a name of its own; nothing was written",
            )
        seen[key] = what, path


def _identity(path: str | Path) -> tuple[object, ...]:
    """What a path leads to, there already or not yet; two new names in one folder that differ in case are one."""
    try:
        found = os.stat(path)
        return found.st_dev, found.st_ino
    except (OSError, ValueError):
        place = Path(os.path.realpath(path))
    missing: list[str] = []
    while True:
        missing.append(unicodedata.normalize("NFC", place.name).casefold())
        place = place.parent
        with suppress(OSError):
            found = os.stat(place)
            return found.st_dev, found.st_ino, *missing
        if place == place.parent:
            return (str(path), *missing)


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
