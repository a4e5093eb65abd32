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


def write(path: str | Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None) -> None:
    """Write the tensors in the order of their names, of wide types first, so that each is aligned.

    Raises PortdetError for a dtype that the format lacks, and where the disk or folder refuses.
    """
    table: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    little = {name: np.asarray(array) for name, array in arrays.items()}
    little = {name: array.astype(array.dtype.newbyteorder("<"), copy=False) for name, array in little.items()}
    order = sorted(little, key=lambda name: (-little[name].dtype.itemsize, name))
    end = 0
    for name in order:
        array = little[name]
        if array.dtype not in DTYPES:
            raise PortdetError(f"tensor '{name}': safetensors cannot hold {array.dtype}", where=str(path))
        place = [end, end := end + array.nbytes]
        table[name] = {"dtype": DTYPES[array.dtype], "shape": list(array.shape), "data_offsets": place}
    head = json.dumps(table, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(head)) + head)
        for name in order:
            file.write(np.ascontiguousarray(little[name]).reshape(-1).view(np.uint8).data)
