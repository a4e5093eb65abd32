"""The few pickle opcodes that a table of arrays needs, written by hand: no framework, no copies of the data."""

from __future__ import annotations

import struct
from collections.abc import Sequence

MARK, TUPLE, EMPTY_TUPLE, EMPTY_DICT, SETITEMS = b"(", b"t", b")", b"}", b"u"
REDUCE, BUILD, PERSISTENT, POP, STOP = b"R", b"b", b"Q", b"0", b"."
TRUE, FALSE, NONE = b"\x88", b"\x89", b"N"


def integer(value: int) -> bytes:
    """BININT, or LONG1 beyond 31 bits."""
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def text(value: str) -> bytes:
    """BINUNICODE."""
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    """GLOBAL."""
    return f"c{module}\n{attribute}\n".encode()


def tuple_(items: Sequence[bytes]) -> bytes:
    """MARK, the items, TUPLE."""
    return MARK + b"".join(items) + TUPLE


def bytes_head(count: int) -> bytes:
    """Opcode and length of a bytes object; its `count` bytes must follow."""
    return b"B" + struct.pack("<I", count) if count < 2**32 else b"\x8e" + struct.pack("<Q", count)
