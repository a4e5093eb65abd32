"""Values that a few hundred bytes of pickle make, and that never end when they are printed, compared, hashed or walked
through; and every place of a pickle that one may be put into.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Iterator

import numpy as np

from portdet_convert.files import pickle_write as op
from portdet_convert.files import pth

LEVELS = 60
_FIRST = 1_000_000  # of the memo, where no pickle of ours remembers anything
HEAD = pickle.dumps(1001, 2) + pickle.dumps(
    {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}, 2
)


def _put(level: int) -> bytes:
    return b"r" + struct.pack("<I", _FIRST + level)


def _get(level: int) -> bytes:
    return b"j" + struct.pack("<I", _FIRST + level)


def _doubled(first: bytes, make: bytes, fill: str = "{0}{0}", end: bytes = b"") -> bytes:
    """`make` of the value below it twice, 60 times over: 2^60 leaves. `fill` puts the value in its places."""
    data = first + _put(0) + b"0"
    for level in range(LEVELS):
        inside = fill.encode().replace(b"{0}", _get(level))
        data += make + inside + end + _put(level + 1) + b"0"
    return data + _get(LEVELS)


def _object(args: bytes, state: bytes) -> bytes:
    """An array that its parts do not make one."""
    return op.name("numpy", "dtype") + args + op.REDUCE + state + op.BUILD


_TUPLES = b"N" + b"2\x86" * LEVELS
BOMBS: dict[str, bytes] = {
    "tuples": _TUPLES,
    "lists": _doubled(b"N", b"(", end=b"l"),
    "dictionaries": _doubled(b"N", b"}(", "K\0{0}K\1{0}", b"u"),
    "keys that are tuples": b"}(" + _TUPLES + b"K\0u",
    "a set of tuples": b"\x8f(" + _TUPLES + b"\x90",
    "an OrderedDict of lists": op.name("collections", "OrderedDict")
    + b"]("
    + op.text("a")
    + _doubled(b"N", b"(", end=b"l")
    + b"\x86e\x85R",
    "a list in itself": b"]" + _put(0) + _get(0) + b"a",
    "a dictionary in itself": b"}" + _put(0) + b"K\0" + _get(0) + b"s",
    "an object whose arguments are lists": _object(_doubled(b"N", b"(", end=b"l") + b"\x85", b"N"),
    "an object whose state is tuples": _object(b")", _TUPLES),
    "references": b"N" + b"2\x86Q" * LEVELS,
    "deep tuples": b"N" + b"\x85" * 20_000,
    "deep objects": b"".join([op.name("numpy", "dtype"), _put(0), b"0", _get(0) * 2000, b"N", b"\x85R" * 2000]),
    "deep references": b"N" + b"Q" * 20_000,
    "a number of 2032 bits": b"\x8a\xfe" + b"\x7f" * 254,
    "a negative number of 2032 bits": b"\x8a\xfe" + b"\x80" * 254,
    "a number of 16 million bits": b"\x8b" + struct.pack("<I", 1 << 21) + b"\x7f" * 1000,
    "a long text": op.text("\x1b[31m" * 20_000),
    "a text of surrogates": op.text("\ud800" * 3000),
    "long bytes": b"B" + struct.pack("<I", 100_000) + bytes(100_000),
    "not a number": b"G\x7f\xf8\0\0\0\0\0\0",
    "a name": op.name("numpy", "ndarray"),
    "nothing": b"N",
    "true": b"\x88",
    "an empty list": b"]",
    "an empty tuple": b")",
}  # fmt: skip

_MAKES = {
    "NONE", "NEWTRUE", "NEWFALSE", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "BININT", "BININT1", "BININT2", "LONG1",
    "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "BINSTRING", "SHORT_BINSTRING",
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "BINPERSID", "SETITEMS",
    "SETITEM", "APPENDS", "APPEND", "BINGET", "LONG_BINGET",
}  # fmt: skip


def placed(data: bytes, bomb: bytes) -> Iterator[tuple[str, bytes]]:
    """The pickle with the bomb in the place of each of its values in turn: constants, and what was made of others."""
    ops = [(code.name, arg, position or 0) for code, arg, position in pickletools.genops(data)]
    ends = [position for _, _, position in ops[1:]] + [len(data)]
    for (name, arg, _), end in zip(ops, ends, strict=True):
        if name in _MAKES:
            yield f"{name} {str(arg)[:30]} before byte {end}", data[:end] + op.POP + bomb + data[end:]


# What the pickles are of: each format's own table with one tensor, an array, an optimiser's state and settings.


def _table(tensor: bytes) -> bytes:
    settings = pickle.dumps(
        {
            "epoch": 3, "lr": 0.1, "param_groups": [{"params": [0, 1]}], "np": np.arange(2.0),
            "LR_Scheduler": {"last_epoch": 3}, "StructuredToParameterName@@": {"w": "conv_0.w_0_deepcopy_1"},
            "UnpackBigParamInfor@@": {"b": {"OriginShape": (4,), "slices": ["s0", "s1"]}},
            "s0": np.ones(2, np.float32), "s1": np.ones(2, np.float32), "pair": ("inner", np.ones(2, np.float32)),
        }, 2,
    )  # fmt: skip
    return settings[:-1] + b"(" + op.text("w") + tensor + b"u."


_PID = op.tuple_([op.text("storage"), op.name("torch", "FloatStorage"), op.text("0"), op.text("cpu"), op.integer(4)])
_HOOKS = op.name("collections", "OrderedDict") + b")R"
_SIZES = op.tuple_([op.integer(2), op.integer(2)]) + op.tuple_([op.integer(2), op.integer(1)])
_TORCH = op.name("torch._utils", "_rebuild_tensor_v2") + op.tuple_(
    [_PID + b"Q", op.integer(0), _SIZES, op.FALSE, _HOOKS]
) + b"R"  # fmt: skip
_PARAMETER = op.name("torch._utils", "_rebuild_parameter") + op.tuple_([_TORCH, op.TRUE, _HOOKS]) + b"R"
TORCH = _table(_PARAMETER)
PADDLE = {f"Paddle, protocol {n}": pickle.dumps(pickle.loads(_table(b"N")), n) for n in (2, 3, 4)}
KEYS = pickle.dumps(["0"], 2)
STORED = np.arange(4, dtype="<f4").tobytes()


def zipped(pickled: bytes) -> bytes:
    """torch's zip around the pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/data/0", STORED)
    return file.getvalue()


def legacy(parts: list[bytes]) -> bytes:
    """torch's old format of its five pickles."""
    return b"".join(parts) + struct.pack("<q", 4) + STORED


def files() -> Iterator[tuple[str, bytes]]:
    """Every bomb in every place of every pickle of every format; each good file first."""
    magic, version = pth.MAGIC, pickle.dumps(1001, 2)
    parts = [magic, version, HEAD[len(version) :], TORCH, KEYS]
    yield "good zip", zipped(TORCH)
    yield "good legacy", legacy(parts)
    for name, data in PADDLE.items():
        yield f"good {name}", data
    for bomb, value in BOMBS.items():
        for place, data in placed(TORCH, value):
            yield f"torch zip: {bomb} at {place}", zipped(data)
        for number, part in enumerate(parts[1:], start=1):
            for place, data in placed(part, value):
                changed = [*parts[:number], data, *parts[number + 1 :]]
                yield f"torch legacy, pickle {number}: {bomb} at {place}", legacy(changed)
        for name, good in PADDLE.items():
            for place, data in placed(good, value):
                yield f"{name}: {bomb} at {place}", data
