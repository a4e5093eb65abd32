"""Pickles that would run code, and pickles of a few kilobytes that would take hours or terabytes to read.

Each attack is tried as a `.pdparams`, inside a torch zip and as a legacy torch file; those that Python's own unpickler
can load are run there, to show that they are real.
"""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet_convert import open_weights
from portdet_convert.files import pickle_write as op
from portdet_convert.files import pth
from portdet_convert.files.source import BFLOAT16
from tests.patience import GUARD

Refused = Callable[[bytes, str], None]
START = b"\x80\x04"
TOUCH = op.text("touch ran")
LEGACY = pth.MAGIC + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)


def call(module: str, name: str, *args: bytes) -> bytes:
    return op.name(module, name) + op.tuple_(args) + op.REDUCE


def table(value: bytes, key: str = "w") -> bytes:
    return START + b"}(" + op.text(key) + value + b"u."


def stack_global(module: str, name: str) -> bytes:
    return op.text(module) + op.text(name) + b"\x93"


SYSTEM = call("os", "system", TOUCH)
ATTACKS = {
    "os.system": table(SYSTEM),
    "os.system instead of a table": START + SYSTEM + b".",
    "posix.system": table(call("posix", "system", TOUCH)),
    "STACK_GLOBAL": table(stack_global("os", "system") + op.tuple_([TOUCH]) + op.REDUCE),
    "eval": table(call("builtins", "eval", op.text("__import__('os').system('touch ran')"))),
    "eval of Python 2": table(call("__builtin__", "eval", op.text("__import__('os').system('touch ran')"))),
    "exec": table(call("builtins", "exec", op.text("import os; os.system('touch ran')"))),
    "getattr": table(call("builtins", "getattr", op.name("os", "environ"), op.text("copy")) + b")R"),
    "subprocess": table(call("subprocess", "getoutput", TOUCH)),
    "runpy": table(call("runpy", "_run_code", op.text("import os; os.system('touch ran')"), op.EMPTY_DICT)),
    "numpy's own exec": table(call("numpy.testing._private.utils", "runstring", op.text("open('ran', 'w')"), b"}")),
    "torch's nested pickle": table(call("torch.storage", "_load_from_bytes", b"C\x01.")),
    "NEWOBJ": table(op.name("subprocess", "Popen") + op.tuple_([TOUCH]) + b"\x81"),
    "a class, then BUILD": table(op.name("types", "SimpleNamespace") + b")\x81}(" + op.text("x") + SYSTEM + b"ub"),
    "__setstate__ by BUILD": table(
        op.name("types", "SimpleNamespace") + b")R}(" + op.text("__setstate__") + op.name("os", "system") + b"ubNb"
    ),
    "BUILD of a name": table(op.name("numpy", "ndarray") + b"}(" + op.text("f") + op.name("os", "system") + b"ub"),
    "INST": table(b"(S'touch ran'\nios\nsystem\n"),
    "OBJ": table(b"(cos\nsystem\n" + TOUCH + b"o"),
    "NEWOBJ_EX": table(op.name("subprocess", "Popen") + op.tuple_([TOUCH]) + b"}\x92"),
    "EXT1": table(b"\x82\xf0" + op.tuple_([TOUCH]) + op.REDUCE),
    "EXT2": table(b"\x83\xf0\0" + op.tuple_([TOUCH]) + op.REDUCE),
    "EXT4": table(b"\x84\xf0\0\0\0" + op.tuple_([TOUCH]) + op.REDUCE),
    "in a persistent id": table(op.tuple_([op.text("storage"), SYSTEM]) + b"Q"),
    "in a persistent id in one": table(op.tuple_([SYSTEM]) + b"QQ"),
    "in a persistent id of text": table(b"Pstorage\n" + SYSTEM),
    "in the key": START + b"}(" + SYSTEM + b"K\0u.",
    "in what is thrown away": table(SYSTEM + b"0K\0"),
    "in an array's state": table(call("numpy.core.multiarray", "_reconstruct") + op.tuple_([SYSTEM]) + b"b"),
    "in a dtype": table(call("numpy", "dtype", SYSTEM)),
    "in an OrderedDict": table(call("collections", "OrderedDict", b"](" + op.tuple_([op.text("a"), SYSTEM]) + b"e")),
    "memo": START + b"cos\nsystem\n\x940}(" + op.text("w") + b"h\0" + op.tuple_([TOUCH]) + b"Ru.",
}  # fmt: skip


def holders(attack: bytes) -> dict[str, bytes]:
    """The pickle as each kind of file that holds pickles."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", attack)
    return {"pdparams": attack, "zip": file.getvalue(), "legacy": LEGACY + attack + b"\x80\x02]."}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_code_is_run(refused: Refused, attack: str) -> None:
    copyreg.add_extension("os", "system", 240)
    try:
        for data in holders(ATTACKS[attack]).values():
            refused(data, r"bad, byte \d+: (refused: the pickle calls|pickle opcode .* does not occur|the pickle )")
    finally:
        copyreg.remove_extension("os", "system", 240)


def test_the_attacks_are_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own unpickler runs them. (An extension is not among them: it would stay in the process's cache.)"""
    monkeypatch.chdir(tmp_path)
    for attack in ("os.system", "posix.system", "STACK_GLOBAL", "eval", "exec", "INST", "OBJ", "in the key", "memo"):
        pickle.loads(ATTACKS[attack])
        (tmp_path / "ran").unlink()


def test_a_pickle_of_protocol_0_is_no_weight_file(refused: Refused) -> None:
    refused(b"cos\nsystem\n(S'touch ran'\ntR.", "is no weight file that is known")


# Bombs. 2^40 steps or bytes in a few kilobytes: what one object costs is paid once, however often it is referred to.

DEEP = b"N" + b"\x85" * 150_000  # a tuple nested 150,000 deep: hashing it overflows the C stack
WIDE = b"N" + b"2\x86" * 40  # a tuple of two of a tuple of two...: 2^40 leaves
MANY = b"(" + b"N" * 100_000 + b"l"


def tensor(size: bytes, stride: bytes, key: bytes = op.text("0"), first: bytes = op.integer(0)) -> bytes:
    pid = op.tuple_([op.text("storage"), op.name("torch", "FloatStorage"), key, op.text("cpu"), op.integer(4)])
    return call("torch._utils", "_rebuild_tensor_v2", pid + b"Q", first, size, stride, op.FALSE, b"}")


def array(shape: bytes, data: bytes = b"C\x04abcd", dtype: bytes | None = None) -> bytes:
    dtype = dtype or call("numpy", "dtype", op.text("f4"), op.FALSE, op.TRUE)
    return call("numpy.core.numeric", "_frombuffer", data, dtype, shape, op.text("C"))


def deepcopies() -> bytes:
    """Ten tables of ten tables ... without a single array: 10^14 empty places to look into."""
    data = b"}\x94"
    for level in range(14):
        data += b"}(" + b"".join(op.text(str(i)) + b"h" + bytes([level]) for i in range(10)) + b"u\x94"
    return START + data + b"."


def names() -> bytes:
    """A name of a megabyte before each of 20,000 names of one array."""
    inner = b"".join(b"J" + struct.pack("<i", i) + b"h\0" for i in range(20_000))
    return START + array(b"K\x01\x85") + b"\x940}(" + op.text("x" * 1_000_000) + b"}(" + inner + b"uu."


def latin(count: int) -> bytes:
    """One text of a megabyte that `count` arrays take for their bytes (protocol 2 keeps bytes as text)."""
    text = op.text("x" * 1_000_000) + b"\x940"
    one = array(op.integer(250_000) + b"\x85", call("_codecs", "encode", b"h\0", op.text("latin1")))
    return START + text + b"}(" + b"".join(op.text(str(i)) + one for i in range(count)) + b"u."


def slices(count: int) -> bytes:
    """One tensor of `count` slices, each the same megabyte."""
    data = b"B" + struct.pack("<I", 1_000_000) + bytes(1_000_000)
    shared = array(op.integer(250_000) + b"\x85", data) + b"\x940"
    parts = b"".join(op.text(str(i)) + b"h\0" for i in range(count))
    listed = b"(" + b"".join(op.text(str(i)) for i in range(count)) + b"l"
    info = b"}(" + op.text("OriginShape") + op.integer(250_000 * count) + b"\x85" + op.text("slices") + listed + b"u"
    return START + shared + b"}(" + parts + op.text("UnpackBigParamInfor@@") + b"}(" + op.text("joined") + info + b"uu."


def copies(function: bytes) -> bytes:
    """A list of 10,000 that is made into another container 20,000 times."""
    pairs = b"(" + b"".join(b"J" + struct.pack("<i", i) + b"N\x86" for i in range(10_000)) + b"l"
    return START + function + b"\x940(" + pairs + b"t\x940(" + b"h\0h\x01R" * 20_000 + b"l."


BOMBS = {
    "a key nested deep": (START + b"}(" + DEEP + b"K\0u.", "has a tuple for a key"),
    "a key of 2^40": (START + b"}(" + WIDE + b"K\0u.", "has a tuple for a key"),
    "an element of a set nested deep": (START + b"\x8f(" + DEEP + b"\x90.", "has a tuple for a key"),
    "a name nested deep": (START + DEEP + op.text("x") + b"\x93.", "refused: the pickle calls something"),
    "a name of 2^40": (START + WIDE + op.text("x") + b"\x93.", "refused: the pickle calls something"),
    "a value nested deep": (table(DEEP), "holds no arrays"),
    "a list in itself": (table(b"]\x94h\0a"), "holds no arrays"),
    "a state nested deep": (table(array(DEEP)), "tensor 'w' declares a shape that is no list of integers"),
    "a shape of 2^40": (table(array(WIDE)), "tensor 'w' declares a shape that is no list of integers"),
    "a shape with a text": (table(array(op.tuple_([op.text("a"), op.integer(10**9)]))), "that is no list of integers"),
    "a shape that is a text": (table(array(op.text("ab"))), "shape that is no list of integers"),
    "a shape of 100,000 dimensions": (table(array(MANY.replace(b"N", b"K\xff"))), "declares 100000 dimensions"),
    "a shape of terabytes": (table(array(op.integer(1 << 42) + b"\x85")), "needs 17592186044416 bytes"),
    "data of terabytes": (table(array(b"K\x01\x85", b"\x8e" + struct.pack("<Q", 1 << 44))), "declares 1759218604"),
    "a text of gigabytes": (table(b"X\xff\xff\xff\xff"), "the pickle declares 4294967295 bytes"),
    "a number of gigabytes": (table(b"\x8b\xff\xff\xff\x7f"), r"opcode b'\\x8b' does not occur"),
    "tables without end": (deepcopies(), "more than 100000 entries"),
    "a name of a megabyte": (names(), "a name of 1000000 characters"),
    "one text for many arrays": (latin(50), r"tensor '\d' and those before it unpack to \d+ bytes"),
    "one array for many slices": (slices(1000), "tensor 'joined' and those before it unpack to 1000000000 bytes"),
    "OrderedDict of one list": (copies(op.name("collections", "OrderedDict")), "takes more than 200000 steps"),
    "tuple of one list": (copies(op.name("builtins", "tuple")), "takes more than 200000 steps"),
    "tuple of a text": (table(call("builtins", "tuple", op.text("abc"))), "tuple with something else than a list"),
    "marks without end": (START + b"N" * 90_000 + b"(t" * 50_000 + b".", "holds a tuple"),
    "too many tables": (START + b"}" * 300_000 + b".", "takes more than 200000 steps"),
    "memo that is empty": (table(b"h\x05"), "the pickle is damaged: 5"),
    "an empty stack": (START + b"t.", "the pickle closes what it did not open"),
    "more than was made": (START + b"N\x87.", "the pickle takes more than it made"),
    "beyond a mark": (START + b"NN(\x86.", "the pickle takes more than it made"),
    "a key twice": (START + b"}(" + (op.text("w") + b"K\0") * 2 + b"u.", "key 'w' occurs twice"),
    "a key twice, OrderedDict": (
        START + call("collections", "OrderedDict", b"](" + op.tuple_([op.text("w"), b"N"]) * 2 + b"e") + b".",
        "key 'w' occurs twice",
    ),
    "bytes behind": (table(array(b"K\x01\x85")) + b"N.", "2 bytes follow the pickle"),
    "another shape": (table(array(b"K\x03\x85")), r"needs 12 bytes, the pickle holds 4"),
    "a dtype of objects": (table(array(b"K\x01\x85", dtype=call("numpy", "dtype", op.text("O8")))), "is no array of"),
    "a name for Paddle of 2^40": (
        START + b"}(" + op.text("StructuredToParameterName@@") + b"}(" + op.text("w") + WIDE + b"uu.", "holds no arrays"
    ),
    "the same beside an array": (
        START + b"}(" + op.text("StructuredToParameterName@@") + b"}(" + op.text("w") + WIDE + b"u"
        + op.text("w\n") + array(b"K\x01\x85") + b"u.", r"a tensor cannot be named 'w\\n'",
    ),
    "a slice that is missing": (
        table(b"}(" + op.text("j") + b"}(" + op.text("slices") + b"(" + op.text("gone") + b"l" + op.text("OriginShape")
              + b"K\x01\x85uu", "UnpackBigParamInfor@@"), "tensor 'j': its slice 'gone' is missing",
    ),
}  # fmt: skip
TORCH_BOMBS = {
    "a key of 2^40": (tensor(b"K\x02\x85", b"K\x01\x85", WIDE), "storage of unknown kind"),
    "a key nested deep": (tensor(b"K\x02\x85", b"K\x01\x85", DEEP), "storage of unknown kind"),
    "a size of 2^40": (tensor(WIDE, b"K\x01\x85"), "declares a shape that is no list"),
    "a stride of text": (
        tensor(op.integer(10**9) + b"\x85", op.text("a") + b"\x85"),
        "the stride of tensor 'w' is 'a', not",
    ),
    "a stride short": (tensor(b"K\x02K\x02\x86", b"K\x01\x85"), "tensor 'w' has 2 sizes and 1 strides"),
    "a negative stride": (tensor(b"K\x02\x85", op.integer(-1) + b"\x85"), r"stride \(-1,\) from 0 exceeds"),
    "beyond the storage": (tensor(b"K\x03\x85", b"K\x02\x85"), r"stride \(2,\) from 0 exceeds its 4 values"),
    "a start beyond the storage": (tensor(b"K\x01\x85", b"K\x01\x85", first=b"K\x04"), "from 4 exceeds its 4 values"),
    "a start before the storage": (tensor(b"K\x01\x85", b"K\x01\x85", first=op.integer(-1)), "from -1 exceeds"),
    "a start of text": (
        tensor(b"K\x01\x85", b"K\x01\x85", first=op.text("x")),
        "the first value of tensor 'w' is 'x', not a",
    ),
}  # fmt: skip
KEYS = pickle.dumps(["0"], 2)
STORED = struct.pack("<q4f", 4, 0, 1, 2, 3)
GOOD = table(tensor(b"K\x02K\x02\x86", b"K\x02K\x01\x86"))
LEGACY_BAD = {
    "version 7": (pth.MAGIC + pickle.dumps(7, 2) + pickle.dumps({}, 2) + GOOD + KEYS + STORED, "legacy torch format 7"),
    "keys nested deep": (LEGACY + GOOD + START + b"](" + DEEP + b"e." + STORED, "a storage's key is"),
    "keys that are no list": (LEGACY + GOOD + START + b"N." + STORED, "its five pickles are not those of torch.save"),
    "a storage twice": (LEGACY + GOOD + pickle.dumps(["0", "0"], 2) + STORED * 2, "lists a storage twice"),
    "a storage missing": (LEGACY + GOOD + pickle.dumps([], 2), "storage 0 is missing"),
    "a storage of terabytes": (LEGACY + GOOD + KEYS + struct.pack("<q", 1 << 42), "storage 0 needs 17592186044416"),
    "a storage of less than nothing": (LEGACY + GOOD + KEYS + struct.pack("<q", -1), "storage 0 needs -4 bytes"),
    "a storage of another size": (LEGACY + GOOD + KEYS + struct.pack("<q2f", 2, 0, 1), "4 values, it holds 8 bytes"),
    "bytes behind": (LEGACY + GOOD + KEYS + STORED + b"x", "1 bytes follow the last storage"),
}  # fmt: skip


def bombs() -> dict[str, tuple[bytes, str]]:
    cases = {f"pdparams: {name}": case for name, case in BOMBS.items()}
    for name, (value, match) in TORCH_BOMBS.items():
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a/data.pkl", table(value))
            archive.writestr("a/data/0", STORED[8:])
        cases[f"zip: {name}"] = (file.getvalue(), match)
        cases[f"legacy: {name}"] = (LEGACY + table(value) + KEYS + STORED, match)
    return cases | {f"legacy: {name}": case for name, case in LEGACY_BAD.items()}


CHILD = """
import resource, sys
from portdet_convert import open_weights
from portdet_convert.files import pickles
from portdet.errors import PortdetError
pickles._STEPS = 200_000  # of 5,000,000: as much is reached sooner
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (1200, 1200))
for line in sys.stdin:
    try:
        open_weights(line.strip())
        print('read', flush=True)
    except PortdetError as error:
        print(str(error).replace(chr(10), ' '), flush=True)
"""


def test_bombs(tmp_path: Path) -> None:
    """In a process with 3 GB and 20 minutes of processor time: a crash or a hang there is no crash or hang here."""
    cases = bombs()
    for i, (data, _) in enumerate(cases.values()):
        (tmp_path / f"b{i}").write_bytes(data)
    paths = [str(Path(__file__).parents[2] / name) for name in (".", "weights_convert")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input="\n".join(f"b{i}" for i in range(len(cases))), cwd=tmp_path, env=env,
        capture_output=True, text=True, timeout=GUARD, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    wrong = {
        name: line
        for (name, (_, match)), line in zip(cases.items(), lines, strict=False)
        if not line.startswith("b") or not re.search(match, line)
    }
    assert not wrong
    assert (done.returncode, len(lines)) == (0, len(cases)), list(cases)[len(lines)] + done.stderr[-500:]


def test_what_looks_odd_and_is_right(tmp_path: Path) -> None:
    """Two tensors over one storage, overlapping windows, big-endian arrays, and uint16, which is Paddle's bfloat16."""
    windows = tensor(b"K\x03K\x02\x86", b"K\x01K\x01\x86")
    (tmp_path / "w").write_bytes(
        LEGACY + START + b"}(" + op.text("a") + windows + op.text("b")
        + tensor(b"K\x04\x85", b"K\x01\x85") + b"u." + KEYS + STORED
    )  # fmt: skip
    found = open_weights(tmp_path / "w").arrays
    assert found["a"].tolist() == [[0, 1], [1, 2], [2, 3]]
    assert found["b"].tolist() == [0, 1, 2, 3]
    values: dict[str, Any] = {
        "swapped": np.arange(3, dtype=">f4"), "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "brain": np.array([0x3F80, 0x4000], ">u2"), "scalar": np.float32(2.5), "empty": np.zeros((0, 3), np.float32),
    }  # fmt: skip
    for protocol in (2, 3, 4, 5):
        (tmp_path / "w").write_bytes(pickle.dumps(values, protocol))
        found = open_weights(tmp_path / "w").arrays
        assert found["brain"].dtype == BFLOAT16
        assert found["brain"].view("<u2").tolist() == [0x3F80, 0x4000]
        for name in ("swapped", "columns", "scalar", "empty"):
            assert np.array_equal(found[name], values[name])
