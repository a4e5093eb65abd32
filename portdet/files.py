"""Outputs appear whole or not at all: written beside their place under a temporary name, synced, then renamed.

A new file has the mode that the umask leaves of 0666, also where it takes the place of one with another mode.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from portdet.errors import PortdetError
from portdet.outside import plain
from portdet.processes import guard, held

# What `replacing` writes to, and the name that the safetensors package gave its own temporary file.
_TEMPORARY = re.compile(r"\..+\.\d+(-\d+)?(\.\w+)?|\.tmp\w{6}", re.ASCII)
_MOST = 100  # temporary files of one name and process


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary file (same folder, same suffix, empty) to write; at the end it takes the place of `path`.

    On any error, a full disk or an interrupt the old file stays as it was and the temporary one is removed; of a
    process that is killed it stays, for `sweep` to find. A symlink stays one: the file it leads to is replaced. Raises
    `PortdetError` where the disk or folder refuses, or a run's folder has gone (see `guard`).
    """
    target = Path(os.path.realpath(path))
    try:
        if target.is_dir():
            raise PortdetError("is a folder", where=str(path), fix="name the file to write")
        if target.exists() and not target.is_file():  # a rename would put a file in the place of /dev/null
            raise PortdetError("is no regular file", where=str(path), fix="name the file to write")
        guard.check(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(target) as temporary:
            yield temporary
            sync(temporary)
            guard.check(path)
            temporary.replace(target)
            sync(target.parent)
    except OSError as error:
        guard.check(path)  # a folder that has gone says so
        raise PortdetError(
            f"cannot be written: {error.strerror or error}",
            where=str(path),
            fix="free space on that disk, or write to another folder; nothing was changed",
        ) from error


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """An empty file beside `target` that is locked as long as the block lasts, and gone after it."""
    for number in range(_MOST):
        more = f"-{number}" if number else ""
        path = target.with_name(f".{target.stem}.{os.getpid()}{more}{target.suffix}")
        if path.exists():
            held.remove_abandoned(path)  # of a killed process with our number
        try:
            handle = held.create(path)
        except FileExistsError:
            continue
        try:
            if held.lock(handle) is False or not held.is_at(handle, path):
                continue  # `sweep` was here between the two
            try:
                yield path
            finally:
                with suppress(OSError):
                    path.unlink()
            return
        finally:
            os.close(handle)
    raise PortdetError(f"{_MOST} temporary files of this name are in use", where=str(target), fix="remove them")


def sweep(*folders: Path) -> int:
    """Remove the temporary files in `folders` (not below) that no living process holds; how many that were."""
    found = 0
    for folder in folders:
        with suppress(OSError):
            for name in os.listdir(folder):
                found += bool(_TEMPORARY.fullmatch(name)) and held.remove_abandoned(folder / name)
    return found


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
