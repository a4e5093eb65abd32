"""Members of a zip archive that may not be trusted."""

from __future__ import annotations

import struct
import zipfile
import zlib

from portdet_convert.files.source import Source


def members(source: Source) -> dict[str, zipfile.ZipInfo]:
    """The archive's members by name. Raises `PortdetError` for duplicates, encrypted members, bytes after the end."""
    found: dict[str, zipfile.ZipInfo] = {}
    with zipfile.ZipFile(source.path) as archive:
        for info in archive.infolist():
            if info.filename in found:
                raise source.error(f"member '{info.filename}' occurs twice", info.header_offset)
            if info.flag_bits & 1:
                raise source.error(f"member '{info.filename}' is encrypted", info.header_offset)
            found[info.filename] = info
        end = source.size - 22 - len(archive.comment)
        if bytes(source.data[end : end + 4]) != b"PK\x05\x06":
            raise source.error("bytes follow the zip archive", fix="the file is damaged: copy it again")
    return found


def stored(source: Source, info: zipfile.ZipInfo) -> memoryview:
    """The bytes of an uncompressed member, as a view of the file; its CRC must hold."""
    what, at = f"member '{info.filename}'", info.header_offset
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise source.error(
            f"{what} is compressed, which torch.save never does", at, fix="save it again with torch.save"
        )
    name, extra = struct.unpack("<HH", source.bytes(at + 26, 4, what))
    data = source.bytes(at + 30 + name + extra, info.file_size, what)
    if (found := zlib.crc32(data)) != info.CRC:
        raise source.error(f"{what} has CRC32 {found:08x}, the archive says {info.CRC:08x}", at, fix="copy it again")
    return data


def write_stored(archive: zipfile.ZipFile, name: str, data: bytes | memoryview, align: int = 1) -> None:
    """Add an uncompressed member whose data starts at a multiple of `align` bytes. The date is fixed, as torch's is."""
    info = zipfile.ZipInfo(name)
    info.file_size = len(data)
    if archive.fp is not None and align > 1:
        gap = -(archive.fp.tell() + 30 + len(name.encode()) + 4) % align
        info.extra = b"FB" + struct.pack("<H", gap) + b"Z" * gap
    with archive.open(info, "w") as member:
        member.write(data)
