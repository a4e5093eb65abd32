"""torch's `.pth`: a zip of `data.pkl` and one member per storage, or (before torch 1.6) pickles followed by storages.

A tensor in the pickle is a call `_rebuild_tensor_v2(storage, offset, size, stride, ...)`, read here as a description.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from portdet.errors import PortdetError
from portdet.outside import shown
from portdet_convert.files import pickle_write as op
from portdet_convert.files import pickles, typed, zips
from portdet_convert.files.output import check_names, replacing
from portdet_convert.files.pickles import Call, Global, Persistent
from portdet_convert.files.remarks import pack
from portdet_convert.files.source import (
    BFLOAT16,
    MOST_TENSORS,
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

STORAGES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype("<f4"), "DoubleStorage": np.dtype("<f8"), "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": BFLOAT16, "LongStorage": np.dtype("<i8"), "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"), "CharStorage": np.dtype("i1"), "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"), "ComplexFloatStorage": np.dtype("<c8"), "ComplexDoubleStorage": np.dtype("<c16"),
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in STORAGES.items()}
_TENSOR, _PARAMETER = Global("torch._utils", "_rebuild_tensor_v2"), Global("torch._utils", "_rebuild_parameter")
_ALLOWED = {*pickles.NUMPY, *(Global("torch", name) for name in STORAGES), _TENSOR, _PARAMETER,
            Global("torch", "Size"), Global("torch", "device")}  # fmt: skip
MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # pickle of 0x1950a86a20f9469cfc6c, first in a legacy file
_ALIGN = 64  # torch's own alignment, so that torch.load(mmap=True) gets aligned tensors

Order = Literal["<", ">"]
Storage = Callable[[str], memoryview]


@reader("torch file")
def read(path: str | Path) -> Contents:
    """All tensors and numpy arrays by dotted path (`state_dict.conv.weight`), zip and legacy format, and remarks.

    Raises `PortdetError` for a pickle that names anything but tensors (a whole pickled model, or an attack).
    """
    source = Source(path)
    table, storage, order, remarks = _legacy(source) if source.data[: len(MAGIC)] == MAGIC else _zip(source)
    if not isinstance(table, dict):
        raise source.error(
            f"holds a {type(table).__name__}, not a table of tensors", fix="save model.state_dict() with torch"
        )
    arrays: Arrays = {}
    for name, leaf in pickles.leaves(source, table):
        with source.reading(f"tensor '{name}'"):
            array = _tensor(source, leaf, name, storage, order)
        if array is None:
            array = pickles.numpy_array(source, leaf, name)
        if array is not None:
            arrays[name] = array
    if not arrays:
        raise source.error("holds no tensors")
    return arrays, remarks


def _zip(source: Source) -> tuple[Any, Storage, Order, dict[str, str]]:
    found, remarks = zips.members(source)
    roots = [name[: -len("data.pkl")] for name in found if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise source.error(f"is a zip with {len(roots)} members data.pkl, torch writes one")
    root = roots[0]
    data, start = zips.stored(source, found[f"{root}data.pkl"])
    table, end = pickles.load(source, start, start + len(data), _ALLOWED)
    if end != start + len(data):
        raise source.error(f"{start + len(data) - end} bytes follow the pickle in {root}data.pkl", end)
    order = bytes(zips.stored(source, found[f"{root}byteorder"])[0]) if f"{root}byteorder" in found else b"little"
    if order not in (b"little", b"big"):
        raise source.error(f"{root}byteorder says {order[:20]!r}, neither little nor big")
    cache: dict[str, memoryview] = {}

    def storage(key: str) -> memoryview:
        if key not in cache:
            if f"{root}data/{key}" not in found:
                raise source.error(f"storage {key} is missing from the archive")
            cache[key] = zips.stored(source, found[f"{root}data/{key}"])[0]
        return cache[key]

    return table, storage, ">" if order == b"big" else "<", remarks


def _legacy(source: Source) -> tuple[Any, Storage, Order, dict[str, str]]:
    position, parts = 0, []
    for _ in range(5):  # magic number, protocol version, machine, the object, the keys of its storages
        part, position = pickles.load(source, position, source.size, _ALLOWED)
        parts.append(part)
    _, version, machine, table, keys = parts
    if type(version) is not int or version != 1001:
        raise source.error(f"legacy torch format {shown(version, 40)}, expected 1001", len(MAGIC))
    if type(machine) is not dict or type(keys) is not list:
        raise source.error("its five pickles are not those of torch.save", position)
    little_endian = machine.get("little_endian", True)
    if type(little_endian) is not bool:
        raise source.error(f"little_endian is {shown(little_endian, 40)}, neither true nor false", len(MAGIC))
    sizes = {key: dtype.itemsize for dtype, key, _ in (_storage(source, i.id) for i in _persistent(table))}
    order: Order = "<" if little_endian else ">"
    found: dict[str, memoryview] = {}
    for key in typed.items(source, keys, "its list of storages", MOST_TENSORS):
        if typed.text(source, key, "a storage's key") not in sizes or key in found:
            raise source.error("lists a storage twice, or one that no tensor uses", position)
        (count,) = struct.unpack(f"{order}q", source.bytes(position, 8, f"the length of storage {key}"))
        found[key] = source.bytes(position + 8, count * sizes[key], f"storage {key}")
        position += 8 + len(found[key])
    if position != source.size:
        raise source.error(f"{source.size - position} bytes follow the last storage", position)
    if lost := sorted(set(sizes) - set(found)):
        raise source.error(f"storage {lost[0]} is missing")
    return table, found.__getitem__, order, {}


def _persistent(root: Any) -> list[Persistent]:
    """Every storage that the object refers to. Iterative, each container once: pickles may share and nest freely."""
    found, stack, seen = [], [root], set()
    while stack:
        value = stack.pop()
        if isinstance(value, Persistent):
            found.append(value)
        elif id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, dict):
                stack += value.values()
            elif isinstance(value, (list, tuple)):
                stack += value
            elif isinstance(value, Call):
                stack += [value.args, value.state]
    return found


def _storage(source: Source, pid: Any) -> tuple[np.dtype[Any], str, int]:
    """Dtype, key and number of values that a reference to a storage declares. Views of old torch are not known."""
    match pid:
        case ("storage", Global("torch", kind), str(key), str(), int(count), *rest) if not rest or rest[0] is None:
            if kind in STORAGES and len(rest) < 2:
                key = typed.text(source, key, "a storage's key")
                return STORAGES[kind], key, typed.whole(source, count, f"the length of storage '{key}'")
    raise source.error("a tensor lies in a storage of unknown kind", fix="save it again with a newer torch")


def _tensor(source: Source, value: Any, name: str, storage: Storage, order: Order) -> Array | None:
    if isinstance(value, Call) and value.function == _PARAMETER and value.args:
        value = value.args[0]
    if not isinstance(value, Call) or value.function != _TENSOR:
        return None
    if len(value.args) < 4 or not isinstance(value.args[0], Persistent):
        raise source.error(f"tensor '{name}' lies in no storage")
    held, start, shape, steps = value.args[:4]
    kind, key, count = _storage(source, held.id)
    dtype = kind.newbyteorder(order)
    data = storage(key)
    if len(data) != nbytes(source, dtype, [count], name):
        raise source.error(f"tensor '{name}': storage {key} declares {count} values, it holds {len(data)} bytes")
    first = typed.whole(source, start, f"the first value of tensor '{name}'")
    stride = typed.wholes(source, steps, f"the stride of tensor '{name}'")
    elements = nbytes(source, np.dtype("i1"), shape, name)
    return _strided(source, view(data, dtype, [count]), first, tuple(shape), stride, elements, name)


def _strided(
    source: Source, flat: Array, first: int, size: tuple[int, ...], stride: tuple[int, ...], count: int, name: str
) -> Array:
    """A view of the storage of `count` values. More than it has (an expanded tensor) count as copies: a tiny file
    stays tiny."""
    if len(size) != len(stride):
        raise source.error(f"tensor '{name}' has {len(size)} sizes and {len(stride)} strides")
    last = first + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if count else first
    if first < 0 or min(stride, default=0) < 0 or last > len(flat) - bool(count):
        raise source.error(
            f"tensor '{name}' {shown(size)} with stride {shown(stride)} from {first} exceeds its {len(flat)} values"
        )
    if not count:
        return np.empty(size, flat.dtype)
    if count > len(flat):
        source.copying(count * flat.itemsize, name)
    steps = [s * flat.itemsize for s in stride]
    return np.lib.stride_tricks.as_strided(flat[first:], size, steps, writeable=False)


def write(path: str | Path, arrays: Arrays, remarks: dict[str, str] | None = None) -> None:
    """Write what `torch.load(path, weights_only=True)` reads: the zip format, contiguous CPU tensors."""
    check_names(path, arrays)
    plain = {name: little(array) for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype not in _NAMES:
            raise PortdetError(f"tensor '{name}': torch files cannot hold {array.dtype}", where=str(path))
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = pack(remarks)
        zips.write_stored(archive, "archive/data.pkl", _pickle(plain))
        zips.write_stored(archive, "archive/byteorder", b"little")
        for index, array in enumerate(plain.values()):
            zips.write_stored(archive, f"archive/data/{index}", raw(array), _ALIGN)
        zips.write_stored(archive, "archive/version", b"3\n")


def _pickle(arrays: Arrays) -> bytes:
    parts = [b"\x80\x02", op.EMPTY_DICT, op.MARK]
    for index, (name, array) in enumerate(arrays.items()):
        kind = op.name("torch", _NAMES[array.dtype])
        storage = [op.text("storage"), kind, op.text(str(index)), op.text("cpu"), op.integer(array.size)]
        shape = [op.tuple_([op.integer(n) for n in values]) for values in (array.shape, _strides(array.shape))]
        hooks = op.name("collections", "OrderedDict") + op.EMPTY_TUPLE + op.REDUCE
        args = [op.tuple_(storage) + op.PERSISTENT, op.integer(0), *shape, op.FALSE, hooks]
        parts += [op.text(name), op.name(_TENSOR.module, _TENSOR.name), op.tuple_(args), op.REDUCE]
    return b"".join([*parts, op.SETITEMS, op.STOP])


def _strides(shape: tuple[int, ...]) -> list[int]:
    """Steps between neighbours in C order, counted in values."""
    return [math.prod(max(n, 1) for n in shape[axis + 1 :]) for axis in range(len(shape))]
