"""Writing files so that a reader finds the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from portdet.errors import PortdetError


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to the disk, and rename it to `path`.

    On any failure the temporary file is removed and what was at `path` stays. A full disk, a missing permission and
    other errors of the system become a `PortdetError` with the path and what to do.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _explained(path):
            write(temporary)
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """`replace_file` for text, UTF-8."""
    replace_file(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        old = f"the previous {path.name} is untouched" if path.exists() else "nothing was left behind"
        fix = "free some space and resume" if full else "check that the folder exists and can be written"
        raise PortdetError(f"cannot write {path}: {error.strerror or error}; {old}", fix=fix) from error
