"""Output that is either complete or absent, as one open file: `portdet.files.replacing` for writers that seek."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from portdet import files
from portdet.errors import PortdetError
from portdet_convert.files.source import LONGEST_NAME


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A new binary file, readable and writable, that takes the place of `path` when the block ends without an error."""
    with files.replacing(path) as temporary, temporary.open("x+b") as file:
        yield file


def check_names(path: str | Path, names: Collection[str], reserved: Collection[str] = ()) -> None:
    """Raises `PortdetError` for a name that would not come back from the file as it is."""
    for name in names:
        if not name or "\0" in name or len(name) > LONGEST_NAME or name in reserved:
            raise PortdetError(f"a tensor cannot be named {name[:80]!r}", where=str(path))
        try:
            name.encode()
        except UnicodeEncodeError:
            raise PortdetError(f"the name {name[:80]!r} is no valid Unicode", where=str(path)) from None
