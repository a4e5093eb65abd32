"""numpy's `.npz`: a zip of `.npy` members, plain or compressed; never pickled objects."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from portdet.errors import PortdetError
from portdet_convert.files import zips
from portdet_convert.files.output import check_names, replacing
from portdet_convert.files.remarks import pack
from portdet_convert.files.source import BFLOAT16, Array, Arrays, Contents, Source, little, nbytes, raw, reader, view

# A compressed archive may be small and unpack to terabytes. Weights compress by a few per cent; masks and zeros by
# more, so what is refused is only what is both far larger than the file and too large to be harmless.
_RATIO, _FREE = 64, 256 << 20
_HEADER = 16_384  # of a member; numpy's own limit of the text in it is 10,000


@reader(".npz archive")
def read(path: str | Path) -> Contents:
    """All arrays by member name, and remarks.

    Raises `PortdetError` for objects, damaged members (CRC) and zip bombs.
    """
    source = Source(path)
    found, remarks = zips.members(source)
    total = sum(info.file_size for info in found.values())
    if total > _FREE + _RATIO * source.size:
        raise source.error(f"unpacks to {total} bytes from {source.size}: refused as a zip bomb")
    arrays: Arrays = {}
    for member, info in found.items():
        if not member.endswith(".npy"):
            raise source.error(f"member '{member}' is no .npy array", info.header_offset)
        with source.reading(f"array '{member[:-4]}'", info.header_offset):
            arrays[member[:-4]] = _array(source, zips.unpacked(source, info), info, member[:-4])
    return arrays, remarks


def _array(source: Source, data: memoryview, info: zipfile.ZipInfo, name: str) -> Array:
    form: Any = np.lib.format  # numpy ships no types for it
    file = io.BytesIO(data[:_HEADER])
    version = form.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise source.error(f"array '{name}' has .npy version {version}, known are 1.0 to 3.0", info.header_offset)
    with warnings.catch_warnings():  # numpy parses the header as Python, which warns of odd escapes in damaged ones
        warnings.simplefilter("ignore")
        read_header = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
    if not _holds(dtype):
        raise source.error(f"array '{name}' holds {dtype}, not numbers", info.header_offset)
    expected, found = nbytes(source, dtype, shape, name), len(data) - file.tell()
    if expected != found:
        raise source.error(
            f"array '{name}' of {dtype} {shape} needs {expected} bytes, its member has {found}", info.header_offset
        )
    values = data[file.tell() :]
    return view(values, dtype, shape[::-1]).T if fortran else view(values, dtype, shape)


def _holds(dtype: np.dtype[Any]) -> bool:
    """Numbers and text. Never objects, which are pickles, nor what numpy makes of `<U900000000`: a negative size."""
    return (dtype.kind in "biufcU" and dtype.itemsize > 0) or dtype == BFLOAT16


def write(path: str | Path, arrays: Arrays, remarks: dict[str, str] | None = None) -> None:
    """Write what `numpy.load` reads, uncompressed. bfloat16 becomes a record with one uint16 field `bfloat16`."""
    check_names(path, arrays)
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.comment = pack(remarks)
        for name, given in arrays.items():
            array = little(given)
            if not _holds(array.dtype):
                raise PortdetError(f"tensor '{name}': .npz cannot hold {array.dtype}", where=str(path))
            member = zipfile.ZipInfo(f"{name}.npy")
            member.file_size = array.nbytes + 1024  # lets zipfile decide on zip64 before it knows the size
            with archive.open(member, "w") as out:
                form: Any = np.lib.format
                form.write_array_header_1_0(out, form.header_data_from_array_1_0(array))
                out.write(raw(array))
