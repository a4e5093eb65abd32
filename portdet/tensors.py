"""Writing safetensors files: 8 bytes of header length, a JSON header, then the tensors without gaps.

Not by the safetensors package, which copies every tensor, and writes to a temporary file of its own with a mode of
its own (0600) and a name that nobody finds again when the process is killed. Files are read by the package.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from portdet.errors import PortdetError
from portdet.files import replacing

DTYPES = {
    np.dtype(text): name
    for name, text in {
        "F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8",
        "U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8", "BOOL": "?",
    }.items()
}  # fmt: skip


def write(
    path: str | Path,
    arrays: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
    dtypes: Mapping[np.dtype[Any], str] = DTYPES,
) -> None:
    """Write the tensors in the given order behind a header padded to 8 bytes, so that float64 data is aligned.

    dtypes: the format's name of each little-endian dtype. Raises PortdetError for another dtype, and where the disk or
    folder refuses.
    """
    table: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("<")
        if dtype not in dtypes:
            raise PortdetError(f"tensor '{name}': safetensors cannot hold {dtype}", where=str(path))
        place = [end, end := end + array.nbytes]
        table[name] = {"dtype": dtypes[dtype], "shape": list(array.shape), "data_offsets": place}
    head = json.dumps(table, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for array in arrays.values():
            row = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)
            file.write(row.view(np.uint8).data if row.size else b"")
