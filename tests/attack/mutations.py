"""Small good weight files of every format, and seeded ways to spoil each: bytes, lengths, splices, opcodes."""

from __future__ import annotations

import io
import json
import pickle
import pickletools
import random
import struct
import warnings
import zipfile
from collections.abc import Callable

import numpy as np

from portdet_convert.files import pickle_write as op
from tests.convert.bombs import BOMBS
from tests.convert.test_files_fuzz import SEEDS, TOKENS, damage

FORMATS: dict[str, list[str]] = {
    "darknet": [name for name in SEEDS if name.startswith("darknet")],
    "ckpt": [name for name in SEEDS if name.startswith("ckpt")],
    "pth, zip": ["pth", "pth, data.pkl", "pth, remark"],
    "pth, legacy": ["pth, legacy"],
    "pdparams": [name for name in SEEDS if name.startswith("pdparams")],
    "safetensors": [name for name in SEEDS if name.startswith("safetensors")],
    "npz": [name for name in SEEDS if name.startswith("npz")],
}
Change = Callable[[random.Random, bytes], bytes]


def case(form: str, number: int) -> tuple[str, bytes]:
    """(what was done, the file) of a case of a format; the same for ever."""
    rng = random.Random(f"{form} {number}")
    seed = rng.choice(FORMATS[form])
    data, build = SEEDS[seed]
    names = [name for name, (_, fits) in CHANGES.items() if fits(data)]
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name = rng.choice(names)
        done.append(name)
        data = CHANGES[name][0](rng, data)
    whole = build(data)
    if form != "darknet" and rng.random() < 0.1:
        done.append("member twice")
        whole = _twice(rng, whole)
    return f"{seed}: {', '.join(done)}", whole


def _flip(rng: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        if out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _splice(rng: random.Random, data: bytes) -> bytes:
    """A piece of another file, of any format, over or into this one."""
    other = SEEDS[rng.choice(list(SEEDS))][0]
    start, at = rng.randrange(len(other)), rng.randrange(len(data) + 1)
    piece = other[start : start + rng.randint(1, 200)]
    return data[:at] + piece + data[at + rng.choice((0, len(piece))) :]


def _length(rng: random.Random, data: bytes) -> bytes:
    """An extreme number where a length may be: 0, the largest of its size, the first that is negative, 2^40."""
    form = rng.choice(("<B", "<H", "<I", "<Q", ">I", ">Q"))
    bits = 8 * struct.calcsize(form)
    value = rng.choice((0, 1, 2**bits - 1, 2 ** (bits - 1), 2 ** (bits - 1) - 1, 2 ** min(bits - 1, 40)))
    at = rng.randrange(min(len(data), rng.choice((40, 400, 10**6))) + 1)
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def _token(rng: random.Random, data: bytes) -> bytes:
    return damage(data, [(rng.choice(("insert", "over")), rng.random(), rng.choice(TOKENS))])


def _repeat(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data) + 1)
    piece = data[start : start + rng.choice((1, 8, 60, 500))]
    return data[:start] + piece * rng.choice((2, 3, 50)) + data[start + len(piece) :]


SYSTEM = op.name("os", "system") + op.text("touch ran") + b"\x85R"
EVIL = [
    SYSTEM,
    op.text("os") + op.text("system") + b"\x93" + op.text("touch ran") + b"\x85R",
    op.name("builtins", "eval") + op.text("open('ran', 'w')") + b"\x85R",
    op.name("subprocess", "Popen") + op.text("touch ran") + b"\x85\x81",
    op.name("builtins", "__import__") + op.text("this") + b"\x85R",
    b"(S'touch ran'\nios\nsystem\n",
    b"(cos\nsystem\n" + op.text("touch ran") + b"o",
]
_OPS = [bytes([code]) for code in b"0(2tl}u)sebRQ.N]a\x81\x85\x86\x87\x88\x89\x8f\x90\x93\x94"]


def _pickles(data: bytes) -> list[list[tuple[int, int]]]:
    """(start, end) of every opcode of every pickle at the start of the bytes."""
    found: list[list[tuple[int, int]]] = []
    start = 0
    while len(found) < 5:
        try:
            places = [p for _, _, p in pickletools.genops(data[start:]) if p is not None]
        except Exception:
            break
        end = start + places[-1] + 1
        places = [start + place for place in places]
        found.append(list(zip(places, [*places[1:], end], strict=True)))
        start = end
    return found


def _opcodes(rng: random.Random, data: bytes) -> bytes:
    """One opcode left out, doubled, moved, followed by another, a call, or a value that never ends."""
    ops = rng.choice(_pickles(data) or [[(0, len(data))]])
    (a, b), (c, d) = sorted((rng.choice(ops), rng.choice(ops)))
    new = rng.choice((
        rng.choice(_OPS), b"0" + rng.choice(EVIL), rng.choice(EVIL), b"0" + rng.choice(list(BOMBS.values())),
        b"h" + bytes([rng.randrange(12)]), b"J" + struct.pack("<i", rng.choice((-1, 0, 2**31 - 1))),
    ))  # fmt: skip
    match rng.randrange(5):
        case 0:
            return data[:a] + data[b:]
        case 1:
            return data[:b] + data[a:b] + data[b:]
        case 2 if b <= c:
            return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]
        case 3:
            return data[:a] + new + data[b:]
    return data[:b] + new + data[b:]


def _always(_: bytes) -> bool:
    return True


def _pickled(data: bytes) -> bool:
    return data[:1] == b"\x80"


CHANGES: dict[str, tuple[Change, Callable[[bytes], bool]]] = {
    "bits flipped": (_flip, _always),
    "truncated": (_cut, _always),
    "spliced": (_splice, _always),
    "a length": (_length, _always),
    "a token": (_token, _always),
    "a piece repeated": (_repeat, _always),
    "opcodes": (_opcodes, _pickled),
    "opcodes, again": (_opcodes, _pickled),  # they go deepest
}


def _twice(rng: random.Random, data: bytes) -> bytes:
    """One member of the container a second time, with other content."""
    try:
        if data[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = [(info.filename, archive.read(info)) for info in archive.infolist()]
            members.insert(rng.randrange(len(members) + 1), (rng.choice(members)[0], rng.choice(members)[1]))
            out = io.BytesIO()
            with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
                warnings.simplefilter("ignore")
                for name, content in members:
                    archive.writestr(name, content)
            return out.getvalue()
        if data[8:9] == b"{":
            size = int.from_bytes(data[:8], "little")
            table = json.loads(data[8 : 8 + size])
            name = rng.choice(list(table))
            head = data[8 : 8 + size].rstrip()[:-1] + f",{json.dumps(name)}:{json.dumps(table[name])}}}".encode()
            return struct.pack("<Q", len(head)) + head + data[8 + size :]
        if data[:1] == b"\x0a":
            return data + data[: 2 + data[1]]
    except (ValueError, LookupError, zipfile.BadZipFile, NotImplementedError, OSError, EOFError):
        pass  # damaged beyond that already
    if data[:1] == b"\x80":
        twice = op.text("w") + pickle.dumps(np.ones(2, np.float32), 2)[2:-1]
        return data.replace(b"u.", twice + twice.replace(b"w", b"w", 1) + b"u.", 1)
    return data
