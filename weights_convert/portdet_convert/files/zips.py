"""Members of a zip archive that may not be trusted. Their names are names only: nothing is unpacked to the disk."""

from __future__ import annotations

import struct
import zipfile
import zlib

from portdet.outside import shown
from portdet_convert.files.remarks import unpack
from portdet_convert.files.source import Source

_ENTRY, _END, _END64 = b"PK\1\2", b"PK\5\6", 20 + 56  # marks of the directory; bytes before its end in zip64


def members(source: Source) -> tuple[dict[str, zipfile.ZipInfo], dict[str, str]]:
    """The archive's members by name, and the remarks, which are its comment.

    Raises `PortdetError` for duplicates, encrypted or overlapping members, too many, and bytes after the end.
    """
    source.counted(_entries(source), "members")
    found: dict[str, zipfile.ZipInfo] = {}
    with source.reading("the zip directory"), zipfile.ZipFile(source.path) as archive:
        for info in archive.infolist():
            if info.filename in found:
                raise source.error(f"member '{info.filename}' occurs twice", info.header_offset)
            if info.flag_bits & 1:
                raise source.error(f"member '{info.filename}' is encrypted", info.header_offset)
            found[source.named(info.filename, info.header_offset)] = info
        end = source.size - 22 - len(archive.comment)
        declared = int.from_bytes(source.data[end + 20 : end + 22], "little")  # of the comment, the last in the file
        if bytes(source.data[end : end + 4]) != _END or declared != len(archive.comment):
            raise source.error("bytes follow the zip archive, or are missing", fix="it is damaged: copy it again")
    total = sum(info.compress_size for info in found.values())
    if total > source.size:  # each alone may fit: that is how a few megabytes become petabytes
        raise source.error(f"its members take {total} bytes of {source.size}: they overlap")
    return found, unpack(archive.comment)


def _entries(source: Source) -> int:
    """Members that the directory lists, or a few more, from its bytes alone: `zipfile` makes an object of each."""
    tail = max(source.size - 22 - 65_535, 0)  # the longest comment
    end = bytes(source.data[tail:]).rfind(_END)
    if end < 0:
        return 0
    length = int.from_bytes(source.data[tail + end + 12 : tail + end + 16], "little")
    if length == 0xFFFFFFFF:  # zip64 says it elsewhere
        at = tail + end - _END64
        length = int.from_bytes(source.data[max(at + 40, 0) : max(at + 48, 0)], "little")
    return bytes(source.data[max(tail + end - _END64 - length, 0) : tail + end]).count(_ENTRY)


def stored(source: Source, info: zipfile.ZipInfo) -> tuple[memoryview, int]:
    """The bytes of an uncompressed member, as a view of the file, and where they start; the CRC must hold."""
    what, at = f"member '{info.filename}'", info.header_offset
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise source.error(
            f"{what} is compressed, which torch.save never does", at, fix="save it again with torch.save"
        )
    data, start = _content(source, info)
    return _checked(source, info, data), start


def unpacked(source: Source, info: zipfile.ZipInfo) -> memoryview:
    """The bytes of a member: a view of the file, or unpacked if it is deflated; never more than it declares."""
    if info.compress_type == zipfile.ZIP_STORED:
        return stored(source, info)[0]
    what = f"member '{info.filename}'"
    if info.compress_type != zipfile.ZIP_DEFLATED:
        raise source.error(
            f"{what} is compressed by method {info.compress_type}; numpy stores (0) or deflates (8)", info.header_offset
        )
    packed, start = _content(source, info)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    with source.reading(what, start):
        data = inflate.decompress(packed, info.file_size + 1)
    if len(data) != info.file_size or not inflate.eof or inflate.unused_data:
        raise source.error(f"{what} does not unpack to the {info.file_size} bytes it declares", start)
    return _checked(source, info, memoryview(data))


def _content(source: Source, info: zipfile.ZipInfo) -> tuple[memoryview, int]:
    """The bytes of a member as they lie in the file, and where. Its own header must name it as the directory does."""
    what, at = f"member '{info.filename}'", info.header_offset
    head = source.bytes(at, 30, what)
    name, extra = struct.unpack("<HH", head[26:])
    own = bytes(source.bytes(at + 30, name, what))
    names = (info.orig_filename.encode(), info.orig_filename.encode("cp437", "ignore"))  # zip's two encodings
    if bytes(head[:4]) != b"PK\3\4" or own not in names:
        raise source.error(f"{what} has a header of its own that says otherwise: {shown(own[:80])}", at)
    start = at + 30 + name + extra
    return source.bytes(start, info.compress_size, what), start


def _checked(source: Source, info: zipfile.ZipInfo, data: memoryview) -> memoryview:
    if (found := zlib.crc32(data)) != info.CRC:
        raise source.error(
            f"member '{info.filename}' has CRC32 {found:08x}, the archive says {info.CRC:08x}",
            info.header_offset,
            fix="copy it again",
        )
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
