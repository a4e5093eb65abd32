"""Paddle's `.pdparams`, `.pdopt` and `.pdema`: one pickle of a table of numpy arrays.

Nested tables hold tensors as (name, array). `StructuredToParameterName@@` lists internal names and is not needed.
`UnpackBigParamInfor@@` (protocols 2 and 3, above 2^30 - 1 bytes) says which slices make up a tensor. Paddle stores
bfloat16 as uint16 and, having no uint16 tensors, reads it so back; so does `read`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from portdet.errors import PortdetError
from portdet_convert.files import pickle_write as op
from portdet_convert.files import pickles
from portdet_convert.files.output import replacing
from portdet_convert.files.source import BFLOAT16, Array, Arrays, Source, little, raw, reader

_STRUCTURED, _SLICES = "StructuredToParameterName@@", "UnpackBigParamInfor@@"


@reader("Paddle pickle")
def read(path: str | Path) -> Arrays:
    """All arrays by dotted path. The pickle is interpreted, not run; names outside numpy are refused."""
    source = Source(path)
    table, end = pickles.load(source, 0, source.size, pickles.NUMPY)
    if end != source.size:
        raise source.error(f"{source.size - end} bytes follow the pickle", end)
    if not isinstance(table, dict):
        raise source.error(f"holds a {type(table).__name__}, not a table of arrays")
    slices = table.pop(_SLICES, {})
    table.pop(_STRUCTURED, None)
    arrays: Arrays = {}
    for name, leaf in pickles.leaves(source, table):
        value = leaf[1] if isinstance(leaf, tuple) and len(leaf) == 2 and isinstance(leaf[0], str) else leaf
        array = pickles.numpy_array(source, value, name)
        if array is not None:
            arrays[name] = array.view(BFLOAT16) if array.dtype == np.dtype("<u2") else array
    return _join(source, arrays, slices)


def _join(source: Source, arrays: Arrays, slices: Any) -> Arrays:
    for name, info in slices.items():
        parts = [arrays.pop(part).reshape(-1) for part in info["slices"]]
        arrays[name] = np.concatenate(parts).reshape(info["OriginShape"])
    if not arrays:
        raise source.error("holds no arrays")
    return arrays


def write(path: str | Path, arrays: Arrays) -> None:
    """Write what `paddle.load` reads: pickle protocol 4 of name -> numpy array."""
    with replacing(path) as file:
        file.write(b"\x80\x04" + op.EMPTY_DICT + op.MARK)
        for name, given in arrays.items():
            array = little(given)
            array = array.view("<u2") if array.dtype == BFLOAT16 else array
            if array.dtype.kind not in "biufc":
                raise PortdetError(f"tensor '{name}': .pdparams cannot hold {array.dtype}", where=str(path))
            data = raw(array)
            file.write(op.text(name) + _head(array) + op.bytes_head(len(data)))
            file.write(data)
            file.write(op.TUPLE + op.BUILD)
        file.write(op.SETITEMS + op.STOP)


def _head(array: Array) -> bytes:
    """numpy's own pickle of an array, up to its data: an empty array, and the state that fills it."""
    make = op.name("numpy.core.multiarray", "_reconstruct")
    empty = op.tuple_([op.name("numpy", "ndarray"), op.tuple_([op.integer(0)]), op.bytes_head(1), b"b"])
    order = "|" if array.itemsize == 1 else "<"
    dtype = op.name("numpy", "dtype") + op.tuple_([op.text(array.dtype.str[1:]), op.FALSE, op.TRUE]) + op.REDUCE
    fields = [op.integer(3), op.text(order), op.NONE, op.NONE, op.NONE, *[op.integer(-1)] * 2, op.integer(0)]
    shape = op.tuple_([op.integer(n) for n in array.shape])
    return b"".join([
        make, empty, op.REDUCE, op.MARK, op.integer(1), shape, dtype, op.tuple_(fields), op.BUILD, op.FALSE,
    ])  # fmt: skip
