"""Output that is either complete or absent, as one open file: `portdet.files.replacing` for writers that seek."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from portdet import files


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A new binary file, readable and writable, that takes the place of `path` when the block ends without an error."""
    with files.replacing(path) as temporary, temporary.open("x+b") as file:
        yield file
