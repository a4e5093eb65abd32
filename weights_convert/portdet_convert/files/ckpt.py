"""MindSpore's `.ckpt`: protobuf, read and written by hand.

    Checkpoint { repeated Value value = 1 }
    Value      { string tag = 1; Tensor tensor = 2 }
    Tensor     { repeated int64 dims = 1; string type = 2; bytes content = 3 }

No dims is a scalar, and so are dims [0] with content. A tensor above 512 MiB is split over consecutive Values of one
tag, each with the full dims. With `crc_check=True` MindSpore appends `crc_num` and the CRC32 of all before in 10 bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from portdet.errors import PortdetError
from portdet.outside import shown
from portdet_convert.files.output import check_names, replacing
from portdet_convert.files.remarks import pack, unpack
from portdet_convert.files.source import (
    BFLOAT16,
    MOST_DIMS,
    Array,
    Arrays,
    Contents,
    Source,
    little,
    nbytes,
    raw,
    reader,
    view,
)

DTYPES: dict[str, np.dtype[Any]] = {
    "Float16": np.dtype("<f2"), "Float32": np.dtype("<f4"), "Float64": np.dtype("<f8"), "BFloat16": BFLOAT16,
    "Int8": np.dtype("i1"), "Int16": np.dtype("<i2"), "Int32": np.dtype("<i4"), "Int64": np.dtype("<i8"),
    "UInt8": np.dtype("u1"), "UInt16": np.dtype("<u2"), "UInt32": np.dtype("<u4"), "UInt64": np.dtype("<u8"),
    "Bool": np.dtype("?"),
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_SPLIT = 512 << 20  # MindSpore's own limit of one record
_CRC = b"crc_num"
_REMARKS = 15  # a field of Checkpoint that MindSpore does not have and passes over
CIPHER = (0x7F3A5ED8).to_bytes(4, "little")  # first bytes of every block that MindSpore encrypted


@dataclass
class _Record:
    """One Value: where it starts, and its tensor; the parts of a split tensor are joined in `content`."""

    offset: int
    tag: str = ""
    dims: list[int] = field(default_factory=list)
    type: str = ""
    content: list[memoryview] = field(default_factory=list)
    size: int = 0


@reader("MindSpore .ckpt")
def read(path: str | Path) -> Contents:
    """All tensors by name, and remarks. Text entries (`append_dict` of MindSpore) come as 0-d string arrays.

    Raises `PortdetError` for encrypted, truncated or damaged files (CRC included), and for duplicate names.
    """
    source = Source(path)
    if source.size >= 4 and source.data[:4] == CIPHER:
        raise source.error("is encrypted", 0, fix="load it in MindSpore with its dec_key and save it without enc_key")
    records: dict[str, _Record] = {}
    remarks: dict[str, str] = {}
    last = None
    for number, record in enumerate(_records(source, _payload(source), remarks)):
        source.counted(number + 1, "records")
        if last is not None and _continues(source, last, record):
            last.content += record.content
            last.size += record.size
        elif record.tag in records:
            raise source.error(f"tensor '{record.tag}' occurs twice", record.offset)
        else:
            last = records[record.tag] = record
    return {tag: _tensor(source, record) for tag, record in records.items()}, remarks


def _continues(source: Source, last: _Record, record: _Record) -> bool:
    """Whether a record is the next part of a split tensor: those follow each other, each with the full dims."""
    if (last.tag, last.type, last.dims) != (record.tag, record.type, record.dims) or last.type not in DTYPES:
        return False
    return 0 < last.size < nbytes(source, DTYPES[last.type], last.dims, last.tag)


def _payload(source: Source) -> int:
    """Bytes before the CRC tail, if there is one; the CRC must hold."""
    if source.size < 17 or source.data[-17:-10] != _CRC:
        return source.size
    stored, found = int.from_bytes(source.data[-10:], "big"), zlib.crc32(source.data[:-17])
    if stored != found:
        raise source.error(f"CRC32 is {found:08x}, the file says {stored:08x}", source.size - 10, fix="copy it again")
    return source.size - 17


def _tensor(source: Source, record: _Record) -> Array:
    size = record.size
    data = record.content[0] if len(record.content) == 1 else memoryview(b"".join(record.content))
    if record.type == "str":
        with source.reading(f"text '{record.tag}'", record.offset):
            return np.array(bytes(data).decode("utf-32-le"))
    if record.type not in DTYPES:
        raise source.error(f"tensor '{record.tag}' has the unknown type {shown(record.type, 80)}", record.offset)
    dims = [] if record.dims == [0] and size else record.dims
    expected = nbytes(source, DTYPES[record.type], dims, record.tag)
    if size != expected:
        raise source.error(
            f"tensor '{record.tag}' of {record.type} {shown(tuple(dims))} needs {expected} bytes, "
            f"the record holds {size}",
            record.offset,
        )
    return view(data, DTYPES[record.type], dims)


def _records(source: Source, end: int, remarks: dict[str, str]) -> Iterator[_Record]:
    for number, value, start in _fields(source, 0, end, "Checkpoint", {1: 2, _REMARKS: 2}, (_REMARKS,)):
        assert isinstance(value, range)
        if number == _REMARKS:
            remarks.update(unpack(source.data[value.start : value.stop]))
            continue
        record, tensor = _Record(start), None
        for number, part, offset in _fields(source, value.start, value.stop, "Value", {1: 2, 2: 2, 3: 2}, (1, 2)):
            assert isinstance(part, range)
            if number == 3:
                raise source.error(f"'{record.tag}' is a map parameter, not a tensor", offset)
            if number == 1:
                record.tag = source.named(_text(source, part), part.start)
            else:
                tensor = part
        if tensor is None or not record.tag:
            raise source.error("a record without a name or without a tensor", start)
        _read_tensor(source, tensor, record)
        yield record


def _read_tensor(source: Source, span: range, record: _Record) -> None:
    what = f"tensor '{record.tag}'"
    for number, value, _ in _fields(source, span.start, span.stop, what, {1: 0, 2: 2, 3: 2}, (2, 3)):
        if isinstance(value, int):
            _add_dim(source, record, value)
        elif number == 1:  # dims packed into one field, as proto3 writers do
            position = value.start
            while position < value.stop:
                dim, position = _varint(source, position, value.stop)
                _add_dim(source, record, dim)
        elif number == 2:
            record.type = _text(source, value)
        else:
            record.content.append(source.data[value.start : value.stop])
            record.size = len(value)
    if not record.content:
        record.content.append(memoryview(b""))


def _add_dim(source: Source, record: _Record, value: int) -> None:
    if len(record.dims) == MOST_DIMS:  # millions cost seconds to read
        raise source.error(f"tensor '{record.tag}' declares more than {MOST_DIMS} dimensions", record.offset)
    record.dims.append(value)


def _text(source: Source, span: range) -> str:
    with source.reading("a name", span.start):
        return str(source.data[span.start : span.stop], "utf-8")


def _fields(
    source: Source, start: int, end: int, what: str, wire: dict[int, int], once: tuple[int, ...] = ()
) -> Iterator[tuple[int, int | range, int]]:
    """(field number, integer or span of bytes, offset) of a message.

    `wire` holds the fields that it may have and their wire types, `once` those that it may have only once.
    """
    position, seen = start, set()
    while position < end:
        key, after = _varint(source, position, end)
        number, kind = key >> 3, key & 7
        if number not in wire or kind not in (wire[number], 2):
            raise source.error(f"{what} has an unknown field {number} of wire type {kind}", position)
        if number in seen and number in once:
            raise source.error(f"field {number} of {what} occurs twice", position)
        seen.add(number)
        value, after = _varint(source, after, end)
        if kind == 0:
            yield number, value, position
        else:
            if value > end - after:
                raise source.error(
                    f"field {number} of {what} declares {value} bytes, {end - after} are left", position,
                    fix="the file is truncated or damaged: copy it again",
                )  # fmt: skip
            yield number, range(after, after + value), position
            after += value
        position = after


def _varint(source: Source, position: int, end: int) -> tuple[int, int]:
    value = 0
    for index in range(10):
        if position + index >= end:
            raise source.error("the file ends inside a number", position, fix="it is truncated: copy it again")
        byte = source.data[position + index]
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, position + index + 1
    raise source.error("a number of more than 10 bytes", position)


def write(path: str | Path, arrays: Arrays, remarks: dict[str, str] | None = None) -> None:
    """Write what `mindspore.load_checkpoint` reads; a scalar gets no dims. Raises `PortdetError` for other dtypes."""
    check_names(path, arrays)
    with replacing(path) as file:
        for name, given in arrays.items():
            array = little(given)
            if array.dtype not in _NAMES:
                raise PortdetError(f"tensor '{name}': .ckpt cannot hold {array.dtype}", where=str(path))
            head = b"".join(b"\x08" + _number(n) for n in array.shape) + _prefix(2, _NAMES[array.dtype].encode())
            data, tag = raw(array), _prefix(1, name.encode())
            for start in range(0, max(len(data), 1), _SPLIT):
                part = data[start : start + _SPLIT]
                tensor = head + b"\x1a" + _number(len(part))
                value = tag + b"\x12" + _number(len(tensor) + len(part)) + tensor
                file.write(b"\x0a" + _number(len(value) + len(part)) + value)
                file.write(part)
        if text := pack(remarks):
            file.write(_prefix(_REMARKS, text))


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _prefix(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _number(len(data)) + data
