"""Output that is either complete or absent, as one open file: `portdet.files.replacing` for writers that seek."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from portdet import files
from portdet.errors import PortdetError
from portdet_convert.files.source import LONGEST_NAME

_UNPRINTABLE = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters and halves of characters


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A new binary file, readable and writable, that takes the place of `path` when the block ends without an error."""
    with files.replacing(path) as temporary, temporary.open("w+b") as file:
        yield file


def check_names(path: str | Path, names: Iterable[str], reserved: Collection[str] = ()) -> None:
    """Raises `PortdetError` for a name that some format could not give back, or that would steer a terminal."""
    for name in names:
        if not name or len(name) > LONGEST_NAME or name in reserved or _UNPRINTABLE.search(name):
            raise PortdetError(f"a tensor cannot be named {name[:80]!r}", where=str(path))
