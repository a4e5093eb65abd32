"""A bank of damaged and hostile files, one fault each; what fuzzing found is kept here as a file made by hand."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet_convert import open_weights
from portdet_convert.files import ckpt, darknet, npz, pth, safetensors, source
from portdet_convert.files.source import Array, Arrays

Refused = Callable[[bytes, str], None]
F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


# safetensors


def safe(table: Any, data: bytes = bytes(4)) -> bytes:
    head = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(head)) + head + data


def entry(**changed: Any) -> bytes:
    return safe({"w": {**F32, **changed}})


SAFETENSORS = {
    "length beyond the file": (struct.pack("<Q", 500) + b'{"w":', r"header needs 500 bytes, the file has 5 left"),
    "length of the whole header and no more": (safe({"w": F32}, b""), r"byte \d+: tensor 'w' needs 4 bytes, .* 0 left"),
    "no JSON": (safe(b"{nonsense} "), r"byte 8: the header is damaged: Expecting property name"),
    "no UTF-8": (safe(b'{"\xff":1} '), r"byte 8: the header is damaged: 'utf-8' codec"),
    "nested a hundred thousand deep": (safe(b"{" + b'"a":{' * 100_000), "byte 8: the header is damaged: .*recursion"),
    "a number of a million digits": (safe(b'{"w":' + b"9" * 1_000_000 + b"}"), "header is damaged: Exceeds the limit"),
    "a name twice": (safe(b'{"w":1,"w":1}'), r"byte 8: 'w' occurs twice"),
    "the last of many names twice": (
        safe(b"{" + b"".join(b'"%d":1,' % i for i in range(30_000)) + b'"29999":1}'), "'29999' occurs twice"
    ),
    "a name twice in an entry": (safe(b'{"w":{"shape":[1],"shape":[1]}}'), "'shape' occurs twice"),
    "an entry that is a number": (safe({"w": 1}), "tensor 'w' is not described"),
    "an entry without a dtype": (safe({"w": {"shape": [1], "data_offsets": [0, 4]}}), "tensor 'w' is not described"),
    "an entry with more": (entry(strides=[1]), "tensor 'w' is not described"),
    "an unknown dtype": (entry(dtype="F8_E4M3"), "tensor 'w' has the unknown dtype 'F8_E4M3'"),
    "a gap": (entry(data_offsets=[4, 8]), "tensor 'w' starts at 4, the one before ends at 0"),
    "an overlap": (safe({"v": F32, "w": F32}), "tensor 'w' starts at 0, the one before ends at 4"),
    "offsets backwards": (safe({"v": F32, "w": {**F32, "data_offsets": [4, 0]}}), "its offsets say -4|left"),
    "negative offsets": (entry(data_offsets=[-4, 0]), "tensor 'w' starts at -4"),
    "offsets of terabytes": (entry(data_offsets=[0, 1 << 44]), "takes 4 bytes, its offsets say 17592186044416"),
    "offsets that are no integers": (entry(data_offsets=[0.0, 4.0]), "tensor 'w' is not described"),
    "a shape of terabytes": (entry(shape=[1 << 42], data_offsets=[0, 1 << 44]), "'w' needs 17592186044416 bytes"),
    "a shape beyond 64 bits": (entry(shape=[1 << 62, 8]), "tensor 'w' declares the impossible shape"),
    "a negative shape": (entry(shape=[-1]), "tensor 'w' declares the impossible shape"),
    "a shape of text": (entry(shape=["w", 1_000_000_000]), "tensor 'w' declares a shape that is no list of integers"),
    "a shape of 40 dimensions": (entry(shape=[1] * 40), "tensor 'w' declares 40 dimensions"),
    "another shape": (entry(shape=[2, 2]), "needs 16 bytes|takes 16 bytes, its offsets say 4"),
    "a name of half a character": (safe(json.dumps({"\ud800": F32}).encode()), r"a tensor cannot be named '\\ud800'"),
    "a name that colours the terminal": (safe({"\x1b[31m": F32}), r"bad: a tensor cannot be named '\\x1b\[31m'"),
    "such a name in another error": (safe({"\x1b[31m": 1}), r"tensor '\\x1b\[31m' is not described"),
    "bytes behind": (safe({"w": F32}, bytes(5)), r"byte \d+: 1 bytes follow the last tensor"),
    "metadata that is no table": (safe({"__metadata__": [1], "w": F32}), "__metadata__ is no table of text"),
}  # fmt: skip


# .npz


def npy(header: str | Array, data: bytes = bytes(8), version: bytes = b"\1\0") -> bytes:
    file = io.BytesIO()
    form: Any = np.lib.format  # numpy ships no types for it
    if isinstance(header, str):
        text = header.encode().ljust(117) + b"\n"
        return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\1\0" else "<I", len(text)) + text + data
    form.write_array(file, header)
    return file.getvalue()


def dict_of(descr: str = "'<f4'", order: str = "False", shape: str = "(2,)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"


def archive(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as out:
        for name, data in members:
            out.writestr(name, data)
    return file.getvalue()


GOOD = npy(dict_of())


def deflated(claimed: int | None = None, data: bytes = GOOD) -> bytes:
    """A member whose two headers say that it unpacks to `claimed` bytes."""
    whole = archive(("w.npy", data), method=zipfile.ZIP_DEFLATED)
    return whole if claimed is None else whole.replace(struct.pack("<I", len(data)), struct.pack("<I", claimed))


def changed(data: bytes, old: bytes, new: bytes, count: int = -1) -> bytes:
    assert old in data
    return data.replace(old, new, count)


def with_directory(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """An archive of which the directory at the end, but not its place or length, is changed."""
    at = data.index(b"PK\1\2")
    return data[:at] + change(data[at:])


def overlapping() -> bytes:
    """Ten members that are one and the same megabyte, by ten entries of the directory."""
    body = npy(dict_of("'u1'", shape="(1048448,)"), bytes(1048448))
    whole = archive(("0.npy", body))
    at = whole.index(b"PK\1\2")
    end = whole.index(b"PK\5\6")
    entries = b"".join(whole[at:end].replace(b"0.npy", b"%d.npy" % i) for i in range(10))
    return whole[:at] + entries + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 10, 10, len(entries), at, 0)


def zip64() -> bytes:
    """A member that unpacks to 2^60 bytes, as a zip64 field of the directory says."""

    def claim(directory: bytes) -> bytes:
        field = struct.pack("<HHQ", 1, 8, 1 << 60)
        head = directory[:24] + b"\xff" * 4 + directory[28:30] + struct.pack("<H", len(field)) + directory[32:51]
        end = directory.index(b"PK\5\6")
        return head + field + directory[51 : end + 12] + struct.pack("<I", end + len(field)) + directory[end + 16 :]

    return with_directory(archive(("w.npy", GOOD)), claim)


BOMB = npy(dict_of("'u1'", shape="(500000000,)"), bytes(500_000_000 - 128))
NPZ = {
    "bytes behind": (archive(("w.npy", GOOD)) + b"x", "bytes follow the zip archive"),
    "half a comment": (archive(("w.npy", GOOD))[:-2] + b"\x04\0ab", "bytes follow the zip archive, or are missing"),
    "no .npy": (archive(("w.txt", GOOD)), r"byte 0: member 'w\.txt' is no \.npy array"),
    "a folder": (archive(("w/", b"")), r"member 'w/' is no \.npy array"),
    "a path outside and no .npy": (archive(("../../ran", b"x")), r"member '\.\./\.\./ran' is no \.npy array"),
    "a name with a hidden end": (
        changed(archive(("wx.npy", GOOD)), b"wx.npy", b"w\0.npy"), "member 'w' is no .npy array"
    ),
    "another name inside": (
        changed(archive(("w.npy", GOOD)), b"w.npy", b"v.npy", 1), "member 'w.npy' has a header of its own that says"
    ),
    "a member without its own header": (changed(archive(("w.npy", GOOD)), b"PK\3\4", b"PK\3\0"), "says otherwise|zip"),
    "a wrong CRC": (changed(archive(("w.npy", GOOD)), b"\0" * 8 + b"PK", b"\1" * 8 + b"PK"), "'w.npy' has CRC32"),
    "an encrypted member": (
        with_directory(archive(("w.npy", GOOD)), lambda d: d[:8] + b"\1" + d[9:]), "member 'w.npy' is encrypted"
    ),
    "a member beyond the end": (
        with_directory(archive(("w.npy", GOOD)), lambda d: d[:42] + b"\xff\xff\0\0" + d[46:]), "needs 30"
    ),
    "a damaged directory": (with_directory(archive(("w.npy", GOOD)), lambda d: b"PKxx" + d[4:]), "zip directory is"),
    "bzip2": (archive(("w.npy", GOOD), method=zipfile.ZIP_BZIP2), r"member 'w\.npy' is compressed by method 12"),
    "lzma": (archive(("w.npy", GOOD), method=zipfile.ZIP_LZMA), r"member 'w\.npy' is compressed by method 14"),
    "overlapping members": (overlapping(), "its members take .* they overlap"),
    "exabytes by zip64": (zip64(), "refused as a zip bomb"),
    "a bomb": (deflated(data=BOMB), "unpacks to 500000000 bytes .* refused as a zip bomb"),
    "a bomb that claims to be small": (deflated(136, BOMB), "does not unpack to the 136 bytes it declares"),
    "less than it claims": (deflated(200), "does not unpack to the 200 bytes it declares"),
    "a damaged stream": (
        changed(deflated(), deflated()[40:50], b"\xff" * 10), r"member 'w\.npy' is damaged: Error -3|does not unpack"
    ),
    "a short .npy": (archive(("w.npy", b"\x93NU")), "array 'w' is damaged: EOF"),
    "no magic": (archive(("w.npy", b"x" * 200)), "array 'w' is damaged: the magic string"),
    "version 9": (archive(("w.npy", npy(dict_of(), version=b"\x09\0"))), r"array 'w' has \.npy version \(9, 0\)"),
    "a header of 4 GB": (
        archive(("w.npy", b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(200))), "array 'w' is damaged: EOF"
    ),
    "a header that is code": (
        archive(("w.npy", npy("__import__('os').system('touch ran')"))), "array 'w' is damaged"
    ),
    "a header nested deep": (archive(("w.npy", npy("(" * 5000))), "array 'w' is damaged"),
    "a header with odd escapes": (archive(("w.npy", npy(dict_of(r"'\d'")))), "array 'w' is damaged"),
    "a header without a shape": (archive(("w.npy", npy("{'descr': '<f4', 'fortran_order': False}"))), "'w' is damaged"),
    "objects": (archive(("w.npy", npy(dict_of("'|O'")))), "array 'w' holds object, not numbers"),
    "records": (archive(("w.npy", npy(dict_of("[('a', '<f4')]")))), "array 'w' holds .*, not numbers"),
    "dates": (archive(("w.npy", npy(dict_of("'<M8[s]'", shape="(1,)")))), "array 'w' holds .*, not numbers"),
    "a negative shape": (archive(("w.npy", npy(dict_of(shape="(-2,)")))), "'w' declares the impossible shape"),
    "another shape": (archive(("w.npy", npy(dict_of(shape="(3,)")))), r"\(3,\) needs 12 bytes, its member has 8"),
    "a shape of terabytes": (archive(("w.npy", npy(dict_of(shape="(1 << 42,)")))), "array 'w' is damaged"),
    "a shape of terabytes, written out": (archive(("w.npy", npy(dict_of(shape=f"({2**42},)")))), "needs 1759218604"),
    "a shape with text": (archive(("w.npy", npy(dict_of(shape="('a', 1000000000)")))), "array 'w' is damaged"),
    "a text of gigabytes": (archive(("w.npy", npy(dict_of("'<U90000000'", shape="()")))), "needs 360000000 bytes"),
    "a text of more than numpy counts": (archive(("w.npy", npy(dict_of("'<U900000000'", shape="()")))), "not numbers"),
    "a billion texts without a letter": (
        archive(("w.npy", npy(dict_of("'<U0'", shape="(1000000000,)"), b""))), "not numbers"
    ),
    "values left over": (archive(("w.npy", npy(dict_of(shape="(1,)")))), r"\(1,\) needs 4 bytes, its member has 8"),
}  # fmt: skip


# MindSpore .ckpt


def field(number: int, data: bytes) -> bytes:
    return ckpt._prefix(number, data)


def tensor(dims: bytes = b"\x08\x02", kind: bytes = b"Float32", content: bytes = bytes(8)) -> bytes:
    return dims + field(2, kind) + field(3, content)


def record(body: bytes | None = None, tag: bytes = b"w") -> bytes:
    return field(1, field(1, tag) + field(2, tensor() if body is None else body))


def dims(*sizes: int) -> bytes:
    return b"".join(b"\x08" + ckpt._number(n) for n in sizes)


def crc(data: bytes, value: int) -> bytes:
    return data + b"crc_num" + value.to_bytes(10, "big")


HALF = tensor(dims(4))  # two of these make one tensor
CKPT = {
    "encrypted": (ckpt.CIPHER + bytes(60), r"byte 0: is encrypted\n.*dec_key"),
    "a wrong CRC": (crc(record(), 1), r"byte \d+: CRC32 is [0-9a-f]{8}, the file says 00000001"),
    "half a CRC": (crc(record(), zlib.crc32(record()))[:-5], "Checkpoint has an unknown field 12"),
    "an unknown field": (record() + b"\x22\x01x", r"byte \d+: Checkpoint has an unknown field 4"),
    "a field of another type": (record(b"\x11" + bytes(8) + tensor()), "field 2 of wire type 1"),
    "a number without end": (record(b"\x08" + b"\xff" * 12 + tensor()), "a number of more than 10 bytes"),
    "a length of exabytes": (field(1, b"\x0a" + ckpt._number(1 << 60) + b"w"), "declares 1152921504606846976 bytes"),
    "a record longer than its holder": (field(1, b"\x0a\x50w"), "field 1 of Value declares 80 bytes, 1 are left"),
    "a name twice": (record() + record(), r"byte \d+: tensor 'w' occurs twice"),
    "a name twice, apart": (record() + record(tag=b"v") + record(), "tensor 'w' occurs twice"),
    "an empty tensor twice": (record(tensor(dims(0), content=b"")) * 2, "tensor 'w' occurs twice"),
    "a text twice": (record(tensor(b"", b"str", "hi".encode("utf-32-le"))) * 2, "tensor 'w' occurs twice"),
    "two tensors in a record": (field(1, field(1, b"w") + field(2, tensor()) * 2), "field 2 of Value occurs twice"),
    "two contents in a tensor": (record(tensor() + field(3, bytes(8))), "field 3 of tensor 'w' occurs twice"),
    "no name": (record() + field(1, field(2, tensor())), "a record without a name or without a tensor"),
    "no tensor": (field(1, field(1, b"weight")), "a record without a name or without a tensor"),
    "a name that is no UTF-8": (record(tag=b"\xff\xfe"), r"byte \d+: a name is damaged: 'utf-8'"),
    "an unknown type": (record(tensor(kind=b"Float8")), "tensor 'w' has the unknown type 'Float8'"),
    "a text that is none": (record(tensor(b"", b"str", b"\xff" * 8)), "text 'w' is damaged: 'utf-32-le'"),
    "a map parameter": (field(1, field(1, b"w") + field(3, b"")), "'w' is a map parameter"),
    "another shape": (record(tensor(dims(3))), r"Float32 \(3,\) needs 12 bytes, the record holds 8"),
    "a shape of terabytes": (record(tensor(dims(1 << 42))), "needs 17592186044416 bytes, the record holds 8"),
    "a negative shape": (record(tensor(dims((1 << 64) - 2))), "'w' declares the impossible shape"),
    "a thousand dimensions": (record(tensor(dims(*[1] * 1000))), "'w' declares more than 32 dimensions"),
    "one slice missing": (record(HALF), r"Float32 \(4,\) needs 16 bytes, the record holds 8"),
    "one slice too many": (record(HALF) * 3, "tensor 'w' occurs twice"),
    "a slice in another place": (record(HALF) + record(tag=b"v") + record(HALF), "tensor 'w' occurs twice"),
    "a slice of another shape": (record(HALF) + record(tensor(dims(2, 2))), "tensor 'w' occurs twice"),
    "a slice of another type": (record(HALF) + record(tensor(dims(4), b"Int32")), "tensor 'w' occurs twice"),
    "a slice that is too long": (record(HALF) + record(tensor(dims(4), content=bytes(12))), "the record holds 20"),
}  # fmt: skip


# torch zip

ONE: Arrays = {"w": np.ones((2, 3), np.float32)}


def torch_zip(pkl: bytes | None = None, *more: tuple[str, bytes], data: bytes | None = bytes(24)) -> bytes:
    members = [("a/data.pkl", pth._pickle(ONE) if pkl is None else pkl), *more]
    return archive(*members, *([("a/data/0", data)] if data is not None else []))


PTH = {
    "two tables": (torch_zip(None, ("b/data.pkl", b"N.")), "2 members data.pkl"),
    "a compressed table": (
        archive(("a/data.pkl", pth._pickle(ONE) * 9), method=zipfile.ZIP_DEFLATED), "member 'a/data.pkl' is compressed"
    ),
    "no storage": (torch_zip(data=None), "tensor 'w'.*storage 0 is missing|storage 0 is missing"),
    "a short storage": (torch_zip(data=bytes(20)), "tensor 'w': storage 0 declares 6 values, it holds 20 bytes"),
    "a long storage": (torch_zip(data=bytes(28)), "tensor 'w': storage 0 declares 6 values, it holds 28 bytes"),
    "a damaged storage": (changed(torch_zip(data=b"w" * 24), b"w" * 24, b"v" * 24), "member 'a/data/0' has CRC32"),
    "bytes behind the table": (torch_zip(pth._pickle(ONE) + b"N."), "2 bytes follow the pickle in a/data.pkl"),
    "an unknown byte order": (torch_zip(None, ("a/byteorder", b"middle")), "a/byteorder says b'middle'"),
    "a table in a folder outside": (archive(("../../data.pkl", b"N.")), "holds a NoneType, not a table"),
    "no table": (torch_zip(b"]."), "holds a list, not a table of tensors"),
    "an empty table": (torch_zip(b"}."), "holds no tensors"),
}  # fmt: skip

# darknet

BODY = bytes(4 * 10)
DARKNET = {
    "a header alone": (darknet.Header().pack(), "0 float32 values are neither"),
    "half a header": (darknet.Header().pack()[:17], "the darknet header needs 20 bytes, the file has 17 left"),
    "an old header alone": (darknet.Header(0, 1).pack(), "0 float32 values are neither"),
    "half a value": (darknet.Header().pack() + BODY + b"xy", r"byte 60: 2 bytes are left after 10 float32 values"),
    "another model": (darknet.Header().pack() + BODY, "10 float32 values are neither the backbone"),
    "version 256": (
        darknet.Header(0, 256).pack() + BODY,
        "is no weight file that is known; it begins 00 00 00 00 00 01",
    ),
    "a negative version": (struct.pack("<3iQ", -1, 2, 5, 0) + BODY, "is no weight file that is known"),
}

ALL = {"safetensors": SAFETENSORS, "npz": NPZ, "ckpt": CKPT, "pth": PTH, "darknet": DARKNET}
CASES = {f"{form}: {name}": case for form, cases in ALL.items() for name, case in cases.items()}


@pytest.mark.parametrize("case", CASES)
def test_refused(refused: Refused, case: str) -> None:
    refused(*CASES[case])


# What looks odd and is right


def read(path: Path, data: bytes) -> Arrays:
    path.write_bytes(data)
    return open_weights(path).arrays


def test_names_of_members_are_no_paths(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    names = ["../../ran", "/tmp/ran-by-portdet", "..\\ran"]
    found = read(tmp_path / "in" / "w", archive(*((f"{name}.npy", GOOD) for name in names)))
    assert list(found) == names
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "w"]
    assert not Path("/tmp/ran-by-portdet").exists()


def test_order_of_bytes_and_axes(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    for array in (values, values.astype(">f4"), np.asfortranarray(values), values.astype(">f4").T.copy().T):
        found = read(tmp_path / "w", archive(("w.npy", npy(array))))["w"]
        assert np.array_equal(found, values)
        for write in (npz.write, ckpt.write, pth.write, safetensors.write):
            write(tmp_path / "again", {"w": found})
            again = open_weights(tmp_path / "again").arrays["w"]
            assert again.dtype == np.dtype("<f4")
            assert again.tobytes() == values.tobytes()


def test_more_records_than_a_file_has(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MOST_TENSORS", 10)
    refused(b"".join(record(tag=b"%d" % i) for i in range(11)), "more than 10 records")


def test_slices_of_a_tensor_are_joined_in_their_order(tmp_path: Path) -> None:
    values = np.arange(4, dtype="<f4").tobytes()
    split = record(tensor(dims(4), content=values[:4])) + record(tensor(dims(4), content=values[4:]))
    assert read(tmp_path / "w", split)["w"].tolist() == [0, 1, 2, 3]
    assert read(tmp_path / "w", crc(split, zlib.crc32(split)))["w"].tolist() == [0, 1, 2, 3]
