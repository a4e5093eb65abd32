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
from portdet.outside import shown
from portdet_convert.files import pickle_write as op
from portdet_convert.files import pickles, typed
from portdet_convert.files.output import check_names, replacing
from portdet_convert.files.remarks import pack, unpack
from portdet_convert.files.source import (
    BFLOAT16,
    LONGEST_NAME,
    MOST_TENSORS,
    Array,
    Arrays,
    Contents,
    Source,
    little,
    nbytes,
    raw,
    reader,
)

_STRUCTURED, _SLICES = "StructuredToParameterName@@", "UnpackBigParamInfor@@"
COPIED = "paddle.copied"
"""Metadata key of a file whose tensors `copy.deepcopy` made: Paddle then adds `_deepcopy_N` to their internal names."""


@reader("Paddle pickle")
def read(path: str | Path) -> Contents:
    """All arrays by dotted path; remarks, and `COPIED`, if it is so.

    The pickle is interpreted, not run; names outside numpy are refused.
    """
    source = Source(path)
    table, end = pickles.load(source, 0, source.size, pickles.NUMPY)
    if end != source.size:
        raise source.error(f"{source.size - end} bytes follow the pickle", end)
    if not isinstance(table, dict):
        raise source.error(f"holds a {type(table).__name__}, not a table of arrays")
    slices, structured = table.pop(_SLICES, {}), table.pop(_STRUCTURED, None)
    arrays: Arrays = {}
    for name, leaf in pickles.leaves(source, table):
        value = leaf[1] if type(leaf) is tuple and len(leaf) == 2 and isinstance(leaf[0], str) else leaf
        array = pickles.numpy_array(source, value, name)
        if array is not None:
            arrays[name] = _bfloat16(source, array, name) if array.dtype.str[1:] == "u2" else array
    for name, info in typed.table(source, slices, f"the table {_SLICES}", MOST_TENSORS).items():
        what = f"an entry of the table {_SLICES}"
        name, info = typed.text(source, name, what), typed.table(source, info, what, MOST_TENSORS)
        arrays[name] = _join(source, arrays, name, info.get("slices"), info.get("OriginShape"))
    if not arrays:
        if "LR_Scheduler" in table:  # SGD without momentum keeps nothing else
            raise source.error("holds the state of an optimiser and no weights", fix="give the .pdparams beside it")
        raise source.error("holds no arrays")
    return arrays, _remarks(source, structured)


def _remarks(source: Source, names: Any) -> dict[str, str]:
    copied = (
        isinstance(names, dict)
        and bool(names)
        and all(isinstance(n, str) and len(n) <= LONGEST_NAME and "_deepcopy_" in n for n in names.values())
    )
    length = int.from_bytes(source.data[3:7], "little")
    found = unpack(source.data[7 : 7 + length]) if bytes(source.data[2:3]) == b"X" else {}
    return {**found, COPIED: "yes"} if copied else found


def _bfloat16(source: Source, array: Array, name: str) -> Array:
    if array.dtype.str[0] == ">":
        source.copying(array.nbytes, name)
        array = little(array)
    return array.view(BFLOAT16)


def _join(source: Source, arrays: Arrays, name: str, slices: Any, shape: Any) -> Array:
    """One tensor of its slices, which leave the table."""
    what = f"the slices of tensor '{name}'"
    names = [typed.text(source, part, what) for part in typed.items(source, slices, what, MOST_TENSORS)]
    if name in arrays or len(set(names)) < len(names):
        raise source.error(f"tensor '{name}' or a slice of it occurs twice")
    if lost := [part for part in names if part not in arrays]:
        raise source.error(f"tensor '{name}': its slice '{lost[0]}' is missing")
    if not names:
        raise source.error(f"tensor '{name}' has no slices")
    parts = [arrays.pop(part) for part in names]
    dtype, size = parts[0].dtype, sum(part.nbytes for part in parts)
    expected = nbytes(source, dtype, shape, name)
    if size != expected or len({part.dtype for part in parts}) > 1:
        raise source.error(
            f"tensor '{name}' of {dtype} {shown(tuple(shape))} needs {expected} bytes, its slices have {size}"
        )
    source.copying(size, name)
    joined: Array = np.concatenate([part.reshape(-1) for part in parts]).reshape(tuple(shape))
    return joined


def write(path: str | Path, arrays: Arrays, remarks: dict[str, str] | None = None) -> None:
    """Write what `paddle.load` reads: pickle protocol 4 of name -> numpy array."""
    check_names(path, arrays, (_STRUCTURED, _SLICES))
    with replacing(path) as file:
        text = pack(remarks).decode()
        file.write(b"\x80\x04" + (op.text(text) + op.POP if text else b"") + op.EMPTY_DICT + op.MARK)
        for name, given in arrays.items():
            array = little(given)
            if array.dtype != BFLOAT16 and (array.dtype.kind not in "biufc" or array.dtype == np.dtype("<u2")):
                raise PortdetError(f"tensor '{name}': .pdparams cannot hold {array.dtype}", where=str(path))
            array = array.view("<u2") if array.dtype == BFLOAT16 else array
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
