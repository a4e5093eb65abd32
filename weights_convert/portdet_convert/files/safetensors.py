"""safetensors: 8 bytes of header length, a JSON header, then the tensors without gaps.

Read and written here rather than by the safetensors package, whose numpy side has no bfloat16 and copies every
tensor; the package is the witness in the tests.
"""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from portdet import tensors
from portdet.outside import shown
from portdet_convert.files.output import check_names
from portdet_convert.files.remarks import MOST
from portdet_convert.files.source import BFLOAT16, Array, Arrays, Contents, Source, reader

DTYPES: dict[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "BF16": BFLOAT16,
    "I8": np.dtype("i1"), "I16": np.dtype("<i2"), "I32": np.dtype("<i4"), "I64": np.dtype("<i8"),
    "U8": np.dtype("u1"), "U16": np.dtype("<u2"), "U32": np.dtype("<u4"), "U64": np.dtype("<u8"),
    "BOOL": np.dtype("?"), "C64": np.dtype("<c8"),
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
MOST_HEADER = 100_000_000  # the format's own limit of the header


def _header(source: Source) -> tuple[dict[str, Any], int]:
    (length,) = struct.unpack("<Q", source.bytes(0, 8, "the header's length"))
    if length > MOST_HEADER:
        raise source.error(f"the header declares {length} bytes, the format allows {MOST_HEADER}", 0)
    objects = itertools.count(-1)  # a tensor has one, the remarks and the whole have one

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        source.counted(max(len(pairs), next(objects)))
        return _unique(source, pairs)

    with source.reading("the header", 8):
        text = str(source.bytes(8, length, "the header"), "utf-8")
        table = json.loads(text, object_pairs_hook=unique)
    if not isinstance(table, dict):
        raise source.error("the header is no JSON object", 8)
    return table, 8 + length


def _unique(source: Source, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if source.named(name, 8) in table:
            raise source.error(f"'{name}' occurs twice in the header", 8)
        table[name] = value
    return table


@reader("safetensors file")
def read(path: str | Path) -> Contents:
    """All tensors by name, and the remarks; gaps, overlaps and bytes that no tensor uses are errors."""
    source = Source(path)
    table, base = _header(source)
    remarks = _remarks(source, table.pop("__metadata__", {}))
    arrays: Arrays = {}
    position = 0
    spans = {name: _span(source, name, entry) for name, entry in table.items()}
    for name, (start, end) in sorted(spans.items(), key=lambda item: item[1]):
        entry = table[name]
        if start != position:
            what = f"tensor '{name}' starts at {shown(start)}, the one before ends at {position}"
            raise source.error(what, base)
        arrays[name] = _tensor(source, base + start, end - start, entry, name)
        position = end
    if base + position != source.size:
        raise source.error(f"{source.size - base - position} bytes follow the last tensor", base + position)
    return {name: arrays[name] for name in table}, remarks


def _remarks(source: Source, found: Any) -> dict[str, str]:
    """The text entries that a writer left beside the tensors."""
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise source.error("__metadata__ is no table of text", 8)
    if len(found) > MOST:
        raise source.error(f"__metadata__ has {len(found)} entries, at most {MOST} are read", 8)
    return found


def _span(source: Source, name: str, entry: Any) -> tuple[int, int]:
    """Where the tensor lies, counted from the end of the header. The entry must be one of the format."""
    match entry:
        case {"dtype": str(dtype), "shape": [*_], "data_offsets": [int(start), int(end)], **rest} if not rest:
            if dtype not in DTYPES:
                raise source.error(f"tensor '{name}' has the unknown dtype {shown(dtype, 80)}", 8)
            return start, end
    raise source.error(f"tensor '{name}' is not described by dtype, shape and two data_offsets", 8)


def _tensor(source: Source, offset: int, size: int, entry: dict[str, Any], name: str) -> Array:
    array = source.array(offset, DTYPES[entry["dtype"]], entry["shape"], name)
    if array.nbytes != size:
        raise source.error(
            f"tensor '{name}' of {entry['dtype']} {shown(tuple(entry['shape']))} takes {array.nbytes} bytes, "
            f"its offsets say {shown(size)}", offset,
        )  # fmt: skip
    return array


def write(path: str | Path, arrays: Arrays, remarks: dict[str, str] | None = None) -> None:
    """Write the tensors in the given order behind a header padded to 8 bytes, so that float64 data is aligned."""
    check_names(path, arrays, ("__metadata__",))
    tensors.write(path, arrays, remarks, _NAMES)
