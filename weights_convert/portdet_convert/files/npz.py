"""numpy's `.npz`: a zip of `.npy` members, plain or compressed; never pickled objects."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from portdet.errors import PortdetError
from portdet_convert.files import zips
from portdet_convert.files.output import replacing
from portdet_convert.files.source import BFLOAT16, Array, Arrays, Source, little, nbytes, raw, reader

# A compressed archive may be small and unpack to terabytes. Weights compress by a few per cent; masks and zeros by
# more, so what is refused is only what is both far larger than the file and too large to be harmless.
_RATIO, _FREE = 64, 256 << 20


@reader(".npz archive")
def read(path: str | Path) -> Arrays:
    """All arrays by member name. Raises `PortdetError` for objects, damaged members (CRC) and zip bombs."""
    source = Source(path)
    found = zips.members(source)
    total = sum(info.file_size for info in found.values())
    if total > _FREE + _RATIO * source.size:
        raise source.error(f"unpacks to {total} bytes from {source.size}: refused as a zip bomb")
    arrays: Arrays = {}
    with zipfile.ZipFile(source.path) as archive:
        for member, info in found.items():
            if not member.endswith(".npy"):
                raise source.error(f"member '{member}' is no .npy array", info.header_offset)
            with archive.open(info) as file:
                arrays[member[:-4]] = _array(source, file, info, member[:-4])
    return arrays


def _array(source: Source, file: IO[bytes], info: zipfile.ZipInfo, name: str) -> Array:
    form: Any = np.lib.format  # numpy ships no types for it
    read_header = form.read_array_header_1_0 if form.read_magic(file) == (1, 0) else form.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject or (dtype.kind not in "biufcU" and dtype != BFLOAT16):
        raise source.error(f"array '{name}' holds {dtype}, not numbers", info.header_offset)
    expected = nbytes(source, dtype, shape, name)
    if expected > info.file_size:
        raise source.error(
            f"array '{name}' of {dtype} {shape} needs {expected} bytes, its member has {info.file_size}",
            info.header_offset,
        )
    data = file.read()
    if len(data) != expected:
        raise source.error(f"array '{name}' needs {expected} bytes, its member holds {len(data)}", info.header_offset)
    flat = np.frombuffer(data, dtype) if data else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def write(path: str | Path, arrays: Arrays) -> None:
    """Write what `numpy.load` reads, uncompressed. bfloat16 becomes a record with one uint16 field `bfloat16`."""
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, given in arrays.items():
            array = little(given)
            if array.dtype.hasobject:
                raise PortdetError(f"tensor '{name}': .npz cannot hold {array.dtype}", where=str(path))
            member = zipfile.ZipInfo(f"{name}.npy")
            member.file_size = array.nbytes + 1024  # lets zipfile decide on zip64 before it knows the size
            with archive.open(member, "w") as out:
                form: Any = np.lib.format
                form.write_array_header_1_0(out, form.header_data_from_array_1_0(array))
                out.write(raw(array))
