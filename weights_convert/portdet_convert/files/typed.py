"""Values of a file that may not be trusted, taken by type and size: nothing is printed, compared, hashed or walked
through before it went through here.

A pickle of 500 bytes may hold a list that holds one list twice, 60 times over: `str`, `==` and `hash` of it never end.
"""

from __future__ import annotations

from typing import Any

from portdet.outside import shown
from portdet_convert.files.source import LONGEST_NAME, MOST_DIMS, Source

WIDEST = 63
"""Bits of a whole number beside its sign: sizes, counts and places in a file have no more."""


def text(source: Source, value: Any, what: str, most: int = LONGEST_NAME) -> str:
    """`value`, which must be text of at most `most` characters."""
    if type(value) is not str or len(value) > most:
        raise source.error(f"{what} is {shown(value, 80)}, not a text of at most {most} characters")
    return value


def whole(source: Source, value: Any, what: str) -> int:
    """`value`, which must be a whole number of 64 bits; True and False are none."""
    if type(value) is not int or value.bit_length() > WIDEST:
        raise source.error(f"{what} is {shown(value, 80)}, not a whole number of 64 bits")
    return value


def wholes(source: Source, value: Any, what: str, most: int = MOST_DIMS) -> tuple[int, ...]:
    """`value`, which must be a tuple or list of at most `most` whole numbers."""
    return tuple(whole(source, item, what) for item in items(source, value, what, most))


def items(source: Source, value: Any, what: str, most: int) -> tuple[Any, ...]:
    """The items of `value`, which must be a tuple or a list of at most `most`."""
    if type(value) not in (tuple, list) or len(value) > most:
        raise source.error(f"{what} is {shown(value, 80)}, not a list of at most {most} items")
    return tuple(value)


def table(source: Source, value: Any, what: str, most: int) -> dict[Any, Any]:
    """`value`, which must be a dictionary of at most `most` entries."""
    if type(value) is not dict or len(value) > most:
        raise source.error(f"{what} is {shown(value, 80)}, not a table of at most {most} entries")
    return value
