"""Weight files made and damaged by chance: what is written comes back bit for bit, what is damaged is refused cleanly.

`PORTDET_FUZZ=20000 pytest tests/convert/test_files_fuzz.py` tries that many cases of each kind, new ones every time.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from portdet.errors import PortdetError
from portdet_convert import open_weights, sniff
from portdet_convert.files import READERS, WRITERS, ckpt, darknet, npz, pdparams, pth, safetensors
from portdet_convert.files.source import BFLOAT16, Array, Arrays, little
from tests.counts import Calls

FORMATS = sorted(READERS)
TRIES = int(os.environ.get("PORTDET_FUZZ", "0"))
CASES = settings(
    max_examples=TRIES or 60, deadline=None, derandomize=not TRIES, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip

# Round trips

TYPES: dict[str, list[Any]] = {
    "ckpt": list(ckpt.DTYPES.values()),
    "npz": [*"?bBhHiIlLefdFDgG", "<U3", BFLOAT16],
    "pdparams": [*"?bBhiIlLefdFDg", BFLOAT16],  # its uint16 is bfloat16
    "pth": list(pth.STORAGES.values()),
    "safetensors": list(safetensors.DTYPES.values()),
}
SHAPES = hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=3)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20).filter(
    lambda name: name not in ("__metadata__", "StructuredToParameterName@@", "UnpackBigParamInfor@@")
)


@st.composite
def arrays_of(draw: st.DrawFn, form: str) -> Array:
    """Any bits (NaN payloads, negative zero) of any dtype of the format, in any layout in memory."""
    dtype, shape = np.dtype(draw(st.sampled_from(TYPES[form]))), draw(SHAPES)
    count = int(np.prod(shape, dtype=np.int64))
    if dtype.kind == "U":
        array = np.array(draw(st.lists(st.text("aß€😀", max_size=3), min_size=count, max_size=count)), dtype)
    elif dtype.kind == "b":
        array = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype)
    else:
        size = count * dtype.itemsize
        array = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), dtype)
    array = array.reshape(shape)
    layout = draw(st.sampled_from(["C", "F", "swapped", "strided", "reversed"]))
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "swapped":
        return array.astype(array.dtype.newbyteorder(">"))
    if layout == "strided" and array.ndim:
        return np.repeat(array, 2, axis=0)[::2]
    return array[::-1].copy()[::-1] if layout == "reversed" and array.ndim else array


@pytest.mark.parametrize("form", FORMATS)
@CASES
@given(data=st.data())
def test_what_is_written_comes_back_bit_for_bit(form: str, tmp_path: Path, data: st.DataObject) -> None:
    arrays = data.draw(st.dictionaries(NAMES, arrays_of(form), min_size=1, max_size=4))
    path = tmp_path / "round"
    WRITERS[form](path, arrays)
    assert sniff(path) == form
    back = READERS[form](path)[0]
    assert list(back) == list(arrays)
    for name, array in arrays.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype.newbyteorder("<"), array.shape)
        assert back[name].tobytes() == little(array).tobytes()
    assert os.listdir(tmp_path) == ["round"]


@CASES
@given(
    sizes=st.lists(st.tuples(*[st.integers(1, 3)] * 3, st.booleans()), min_size=1, max_size=4),
    header=st.builds(
        darknet.Header, st.just(0), st.integers(0, 5), st.integers(0, 2**31 - 1), st.integers(0, 2**32 - 1)
    ),
    data=st.data(),
)
def test_darknet_comes_back_bit_for_bit(
    tmp_path: Path, sizes: list[tuple[int, int, int, bool]], header: darknet.Header, data: st.DataObject
) -> None:
    layers = [darknet.Conv(f"c{i}", *size) for i, size in enumerate(sizes)]
    arrays: Arrays = {}
    for name, shape in (tensor for layer in layers for tensor in layer.tensors):
        size = 4 * int(np.prod(shape))
        arrays[name] = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), "<f4").reshape(shape)
    path = tmp_path / "round"
    darknet.write(path, arrays, layers, header)
    assert path.read_bytes() == header.pack() + b"".join(array.tobytes() for array in arrays.values())
    back = darknet.read(path, layers)
    assert all(back[name].tobytes() == array.tobytes() for name, array in arrays.items())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "\x1b[31mred", "\ud800", "x" * 1001])
def test_a_name_that_would_not_come_back_is_refused(tmp_path: Path, form: str, name: str) -> None:
    with pytest.raises(PortdetError, match="out: a tensor cannot be named '"):
        WRITERS[form](tmp_path / "out", {"good": np.ones(1, np.float32), name: np.ones(1, np.float32)})
    assert not os.listdir(tmp_path)


# Damage

SEED: Arrays = {
    "conv.weight": np.arange(12, dtype=np.float32).reshape(2, 3, 2),
    "half": np.ones(3, np.float16),
    "brain": np.arange(4, dtype="<u2").view(BFLOAT16),
    "scalar": np.array(7),
    "empty": np.zeros((0, 2), np.float32),
}
LAYERS = [darknet.Conv("a", 1, 2, 3), darknet.Conv("b", 2, 1, 1, norm=False)]


def made(write: Callable[..., None], *args: Any) -> bytes:
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"portdet-seed-{os.getpid()}"
    write(path, *args)
    data = path.read_bytes()
    path.unlink()
    return data


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def packed(member: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", member)
    return file.getvalue()


def npy(array: Array, version: tuple[int, int] = (1, 0)) -> bytes:
    file = io.BytesIO()
    form: Any = np.lib.format  # numpy ships no types for it
    form.write_array(file, array, version)
    return file.getvalue()


def storages() -> dict[str, bytes]:
    return {f"a/data/{i}": array.tobytes() for i, array in enumerate(SEED.values())}


def in_torch_zip(pkl: bytes) -> bytes:
    return zipped(**{"a/data.pkl": pkl, "a/byteorder": b"little"}, **storages())


def legacy_tail() -> bytes:
    keys = pickle.dumps([str(i) for i in range(len(SEED))], 2)
    return keys + b"".join(struct.pack("<q", a.size) + a.tobytes() for a in SEED.values())


LEGACY_HEAD = pth.MAGIC + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True, "type_sizes": {"int": 4}}, 2)


def with_crc(data: bytes) -> bytes:
    return data + b"crc_num" + zlib.crc32(data).to_bytes(10, "big")


def split_ckpt() -> bytes:
    def record(part: bytes) -> bytes:
        tensor = b"\x08\x02\x08\x03\x12\x07Float32" + ckpt._prefix(3, part)
        value = b"\x0a\x01w" + ckpt._prefix(2, tensor)
        return ckpt._prefix(1, value)

    data = np.arange(6, dtype="<f4").tobytes()
    text = ckpt._prefix(
        1, b"\x0a\x01t" + ckpt._prefix(2, b"\x08\x00\x12\x03str" + ckpt._prefix(3, "hi".encode("utf-32-le")))
    )
    return record(data[:8]) + record(data[8:20]) + record(data[20:]) + text


def as_paddle(protocol: int) -> bytes:
    table: dict[str, Any] = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "pair": ("inner", np.ones(2, np.float32)),
        "scalar": np.float32(3),
        "LR_Scheduler": {"last_epoch": 3, "last_lr": 0.1},
        "w@@.0": np.ones(2, np.float32),
        "w@@.1": np.ones(4, np.float32),
        "UnpackBigParamInfor@@": {"joined": {"OriginShape": (2, 3), "slices": ["w@@.0", "w@@.1"]}},
        "StructuredToParameterName@@": {"w": "conv_0.w_0"},
    }
    return pickle.dumps(table, protocol)


def plain(data: bytes) -> bytes:
    return data


def with_header_length(data: bytes) -> bytes:
    return struct.pack("<Q", max(len(data) - sum(array.nbytes for array in SEED.values()), 0)) + data


# name: the bytes that are damaged, and what makes a file of them: checksums and lengths that would hide deeper code
# from the damage are made after it.
SEEDS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "darknet 20": (darknet.Header(0, 2, 5, 64).pack() + bytes(4 * sum(c.count for c in LAYERS)), plain),
    "darknet 16": (darknet.Header(0, 1, 0, 64).pack() + bytes(4 * sum(c.count for c in LAYERS)), plain),
    "ckpt": (made(ckpt.write, SEED), plain),
    "ckpt, CRC": (made(ckpt.write, SEED), with_crc),
    "ckpt, split": (split_ckpt(), plain),
    "pth": (made(pth.write, SEED), plain),
    "pth, data.pkl": (pth._pickle(SEED), in_torch_zip),
    "pth, legacy": (LEGACY_HEAD + pth._pickle(SEED) + legacy_tail(), plain),
    "pdparams": (made(pdparams.write, SEED), plain),
    **{f"pdparams, protocol {n}": (as_paddle(n), plain) for n in (2, 3, 4, 5)},
    "safetensors": (made(safetensors.write, SEED, {"note": "x"}), plain),
    "safetensors, header": (made(safetensors.write, SEED)[8:], with_header_length),
    "npz": (made(npz.write, SEED), plain),
    **{
        f"{form}, remark": (made(WRITERS[form], {"w": SEED["half"]}, {"darknet.header": "0 2 5 64"}), plain)
        for form in ("ckpt", "npz", "pdparams", "pth")
    },
    "npz, deflated": (packed(npy(SEED["conv.weight"])), plain),
    "npz, member": (npy(SEED["conv.weight"], (1, 0)), lambda data: zipped(**{"w.npy": data})),
    "npz, member 2.0": (npy(np.asfortranarray(SEED["conv.weight"]), (2, 0)), packed),
}
# What a random byte would not hit: lengths at their limits, marks of the formats, opcodes that belong together.
TOKENS = [
    b"\xff" * 4, b"\xff" * 8, b"\xff\xff\xff\x7f", b"\0" * 8, b"\x80" * 9 + b"\x01", struct.pack("<Q", 1 << 40),
    b"PK\3\4", b"PK\1\2", b"PK\5\6", b"\x93NUMPY", b"crc_num", pth.MAGIC, b"\x80\x02", b"\x80\x04",
    b"h\0", b"h\x01", b"q\0", b"\x94", b"(", b"t", b")", b"}", b"]", b"\x8f", b"R", b"b", b"Q", b"0", b"1", b"2", b".",
    b"\x85", b"\x86", b"\x87", b"2\x86" * 40, b"]\x94h\0a", b"s", b"u", b"(u", b"e", b"\x90", b"N", b"K\x02", b"\x81",
    b"\x8a\xff" + b"\x7f" * 255, b"X\0\0\0\0", b"G\x7f\xf8\0\0\0\0\0\0", b"\x93", b"\x82\x01", b"cos\nsystem\n",
    b"c_codecs\nencode\n", b"ccollections\nOrderedDict\n", b"cnumpy\nndarray\n", b"(ios\nsystem\n", b"P1\n",
    b"[", b"]", b"{", b'"', b'""', b",", b"-1", b"0", b"9" * 30, b"1e999", b"NaN", b"null", b"true", b"[" * 3000,
    b"(" * 300, b"'O'", b"'<U99999999'", b"'<f16'", b"'V0'", b"'M8[s]'", b"True", b"2**60", b"(-1,)", b"\\", b"\n",
]  # fmt: skip
PLACE = st.one_of(st.floats(0, 1, exclude_max=True), st.integers(0, 60))
EDIT = st.one_of(
    st.tuples(st.just("set"), PLACE, st.binary(min_size=1, max_size=1)),
    st.tuples(st.just("flip"), PLACE, st.integers(0, 7).map(lambda bit: bytes([1 << bit]))),
    st.tuples(st.sampled_from(["insert", "over"]), PLACE, st.one_of(st.sampled_from(TOKENS), st.binary(max_size=9))),
    st.tuples(st.just("delete"), PLACE, st.integers(1, 40).map(bytes)),
    st.tuples(st.just("repeat"), PLACE, st.integers(1, 200).map(bytes)),
    st.tuples(st.just("cut"), PLACE, st.just(b"")),
)


def damage(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    """The bytes after each edit: (what, where, as a share of the length or as an index, which bytes or how many)."""
    for what, place, by in edits:
        at = min(int(place * len(data)) if isinstance(place, float) else place, max(len(data) - 1, 0))
        before, after = data[:at], data[at:]
        match what:
            case "set" | "over":
                data = before + by + after[len(by) :]
            case "flip":
                data = before + bytes(a ^ b for a, b in zip(after[:1], by, strict=False)) + after[1:]
            case "insert":
                data = before + by + after
            case "delete":
                data = before + after[len(by) :]
            case "repeat":
                data = before + after[: len(by)] * 2 + after[len(by) :]
            case _:
                data = before
    return data


NAMED = ("byte ", "tensor", "array", "member", "storage", "table", "pickle", "zip", "holds", "is empty", "data.pkl")


def read_cleanly(path: Path) -> PortdetError | None:
    """Read; the error if it is refused. Fails on any other exception, a warning, much memory or many calls."""
    tracemalloc.start()
    calls = Calls()
    try:
        with calls, warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                found = open_weights(path, lambda _: LAYERS)
            except PortdetError as error:
                return error
        largest = max((array.nbytes for array in found.arrays.values()), default=0)
        assert largest <= 2 * path.stat().st_size or found.format == "npz"
        assert all(isinstance(name, str) for name in found.arrays)
        return None
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 << 20, f"{peak} bytes"
        assert calls.number < 30_000 + path.stat().st_size  # 3,200 in the cases that are drawn without PORTDET_FUZZ


@pytest.mark.parametrize("seed", SEEDS)
def test_the_undamaged_files_are_read(tmp_path: Path, seed: str) -> None:
    data, build = SEEDS[seed]
    (tmp_path / "good").write_bytes(build(data))
    assert read_cleanly(tmp_path / "good") is None


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_truncated_at_every_byte(tmp_path: Path, seed: str) -> None:
    """Only a .ckpt may end early unnoticed: between two records, where a shorter file would end too."""
    data, build = SEEDS[seed]
    data = build(data)
    read = []
    path = tmp_path / "cut"
    for place in range(len(data)):
        path.write_bytes(data[:place])
        error = read_cleanly(path)
        if error is None:
            read.append(place)
    assert len(read) <= (len(SEED) if seed.startswith("ckpt") else 0), read


@pytest.mark.parametrize("seed", SEEDS)
@CASES
@given(edits=st.lists(EDIT, min_size=1, max_size=4))
def test_damaged_files_are_read_or_refused_and_nothing_else(
    tmp_path: Path, seed: str, edits: list[tuple[str, float, bytes]]
) -> None:
    data, build = SEEDS[seed]
    path = tmp_path / "damaged"
    path.write_bytes(build(damage(data, edits)))
    error = read_cleanly(path)
    if error is not None:
        assert str(error).startswith(str(path))
        assert any(word in str(error) for word in NAMED), error
    assert os.listdir(tmp_path) == ["damaged"]


@CASES
@given(
    head=st.sampled_from([b"", b"PK\3\4", b"\x80\4", b"\x0a\x0c\x0a", b"\x20\0\0\0\0\0\0\0{", pth.MAGIC]),
    tail=st.binary(max_size=200),
)
def test_any_bytes(tmp_path: Path, head: bytes, tail: bytes) -> None:
    path = tmp_path / "any"
    path.write_bytes(head + tail)
    read_cleanly(path)


ARRAY = pickle.dumps(np.ones(2, np.float32), 4)[2:-1]
TENSOR = pth._pickle({"w": np.ones(2, np.float32)})[5:-2]
PROGRAM = st.lists(
    st.one_of(
        st.sampled_from([ARRAY, TENSOR, b"X\1\0\0\0w", b"K\1", *(bytes([code]) for code in b"N}])((")]),
        st.sampled_from([token for token in TOKENS if len(token) < 30]),
    ),
    max_size=30,
)  # fmt: skip


@CASES
@given(program=PROGRAM, end=st.sampled_from([b".", b"u.", b"su.", b"}(X\1\0\0\0wh\0u."]), legacy=st.booleans())
def test_any_program_of_pickle(tmp_path: Path, program: list[bytes], end: bytes, legacy: bool) -> None:
    path = tmp_path / "program"
    data = b"\x80\x04}(" + b"".join(program) + end
    path.write_bytes(LEGACY_HEAD + data + legacy_tail() if legacy else data)
    read_cleanly(path)
