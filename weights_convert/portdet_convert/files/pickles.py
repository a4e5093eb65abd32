"""Pickle, read without running it.

A small interpreter of the pickle opcodes that builds data and *descriptions* of objects: a call of an allowed name
becomes a `Call` that nothing ever executes; any other name is an error. Python's own unpickler is not used: even
restricted to numpy it would build arrays of any declared size. Bytes stay views into the mapped file.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from portdet.outside import plain, shown
from portdet_convert.files import typed
from portdet_convert.files.source import DAMAGE, MOST_TENSORS, Array, Source, nbytes, view

# None of these three is a tuple, nor equal to anything else of the file: `==` never looks into what a pickle holds.


@dataclass(frozen=True)
class Global:
    """A name that the pickle refers to; never imported."""

    module: str
    name: str


@dataclass(eq=False, repr=False)
class Call:
    """What `REDUCE` would have called, with the state that `BUILD` would have set."""

    function: Global
    args: tuple[Any, ...]
    state: Any = None


@dataclass(eq=False, repr=False)
class Persistent:
    """A reference to something outside the pickle (torch: a storage)."""

    id: Any


_CORES = ("numpy.core", "numpy._core")
NDARRAY, DTYPE = Global("numpy", "ndarray"), Global("numpy", "dtype")
RECONSTRUCT = {Global(f"{core}.multiarray", "_reconstruct") for core in _CORES}
SCALAR = {Global(f"{core}.multiarray", "scalar") for core in _CORES}
FROMBUFFER = {Global(f"{core}.numeric", "_frombuffer") for core in _CORES}
ENCODE = Global("_codecs", "encode")
ORDERED = Global("collections", "OrderedDict")
TUPLE, BYTES = Global("builtins", "tuple"), Global("builtins", "bytes")
NUMPY = {NDARRAY, DTYPE, ENCODE, ORDERED, TUPLE, BYTES, *RECONSTRUCT, *SCALAR, *FROMBUFFER}

# What keeps reading linear in the file. A pickle may refer to one object any number of times, so a few kilobytes can
# describe tables of 10^14 entries; hashing a tuple that is nested a million deep overflows the C stack. Whole numbers
# that are equal modulo 2^61 - 1 share a hash: 10^5 of them in one dictionary cost 5 * 10^9 comparisons.
_STEPS = 5_000_000  # opcodes of all pickles of a file; an array takes about 40
_WIDEST_KEY = 60  # bits
_LONGEST_CALLED = 100  # characters of a name that a pickle calls, all allowed ones are shorter
Key = str | int | float | None

_CONSTANTS: dict[int, Callable[[], Any]] = {
    ord("N"): lambda: None, 0x88: lambda: True, 0x89: lambda: False, ord(")"): tuple, ord("]"): list, ord("}"): dict,
    0x8F: set,
}  # fmt: skip
_FIXED = {ord("J"): "<i", ord("K"): "<B", ord("M"): "<H", ord("G"): ">d"}
# opcode: (struct of the length, kind)
_COUNTED = {
    ord("X"): ("<I", "text"), 0x8C: ("<B", "text"), 0x8D: ("<Q", "text"),
    ord("B"): ("<I", "bytes"), ord("C"): ("<B", "bytes"), 0x8E: ("<Q", "bytes"), 0x96: ("<Q", "bytes"),
    ord("T"): ("<i", "latin"), ord("U"): ("<B", "latin"), 0x8A: ("<B", "long"),
}  # fmt: skip


def load(source: Source, start: int, end: int, allowed: Collection[Global]) -> tuple[Any, int]:
    """The object pickled in bytes `start` to `end`, and where its pickle stops.

    Raises `PortdetError` for a name outside `allowed`, an opcode that weight files do not need, and truncation.
    """
    return _Machine(source, start, end, allowed).run()


class _Machine:
    def __init__(self, source: Source, start: int, end: int, allowed: Collection[Global]) -> None:
        self.source, self.position, self.end, self.allowed = source, start, end, allowed
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.steps = source.steps
        self.memo: dict[int, Any] = {}

    def take(self, count: int) -> memoryview:
        if count < 0 or count > self.end - self.position:
            raise self.source.error(
                f"the pickle declares {count} bytes, {self.end - self.position} are left", self.position,
                fix="the file is truncated or damaged: copy it again",
            )  # fmt: skip
        self.position += count
        return self.source.data[self.position - count : self.position]

    def unpack(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def run(self) -> tuple[Any, int]:
        try:
            return self.execute(), self.position
        except DAMAGE as error:
            raise self.source.error(
                f"the pickle is damaged: {error or type(error).__name__}", self.position, fix="copy the file again"
            ) from None
        finally:
            self.source.steps = self.steps

    def step(self, count: int = 1) -> None:
        self.steps += count
        if self.steps > _STEPS:
            raise self.source.error(f"the pickle takes more than {_STEPS} steps", self.position)

    def execute(self) -> Any:
        while (code := self.take(1)[0]) != ord("."):
            self.step()
            if code in _CONSTANTS:
                self.stack.append(_CONSTANTS[code]())
            elif code in _FIXED:
                self.stack.append(self.unpack(_FIXED[code]))
            elif code in _COUNTED:
                self.stack.append(self.counted(*_COUNTED[code]))
            elif code in _ACTIONS:
                _ACTIONS[code](self)
            else:
                raise self.source.error(
                    f"pickle opcode {bytes([code])!r} does not occur in weight files", self.position - 1
                )
        return self.pop(1)[0]

    def counted(self, layout: str, kind: str) -> Any:
        data = self.take(self.unpack(layout))
        if kind == "text":
            return str(data, "utf-8", "surrogatepass")
        if kind == "latin":
            return str(data, "latin-1")
        return data if kind == "bytes" else int.from_bytes(data, "little", signed=True)

    def line(self) -> str:
        tail = bytes(self.source.data[self.position : min(self.end, self.position + 512)])
        return str(self.take(tail.index(b"\n") + 1), "utf-8")[:-1]

    def marked(self) -> list[Any]:
        if not self.marks:
            raise self.source.error("the pickle closes what it did not open", self.position)
        return self.pop(len(self.stack) - self.marks.pop())

    def find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise self.source.error("refused: the pickle calls something that is not a name", self.position)
        module, name = module[:_LONGEST_CALLED], name[:_LONGEST_CALLED]
        found = Global("builtins" if module == "__builtin__" else module, name)  # Python 2's name, in protocol 2
        if found not in self.allowed:
            raise self.source.error(
                f"refused: the pickle calls {plain(module)}.{plain(name)}, which is no part of a table of arrays",
                self.position,
                fix="if you trust the file, save its weights alone (state_dict) with the program that wrote it",
            )  # fmt: skip
        self.stack.append(found)

    def call(self) -> None:
        function, args = self.pop(2)
        if not isinstance(function, Global) or type(args) is not tuple:
            raise self.source.error("the pickle calls something that is not a name", self.position)
        if function in (ORDERED, TUPLE):
            items = args[0] if args else ()
            if len(args) > 1 or type(items) not in (list, tuple):
                raise self.source.error(
                    f"the pickle calls {function.name} with something else than a list", self.position
                )
            self.step(len(items))
            self.stack.append(tuple(items) if function == TUPLE else {})
            if function == ORDERED:
                self.update([part for key, value in items for part in (key, value)])
        elif function == BYTES and not args:  # how protocol 2 writes empty bytes
            self.stack.append(memoryview(b""))
        else:
            self.stack.append(Call(function, args))

    def build(self) -> None:
        (state,) = self.pop(1)
        if isinstance(self.stack[-1], Call):
            self.stack[-1].state = state
        elif not isinstance(self.stack[-1], dict):  # an OrderedDict's attributes (torch: _metadata) hold no tensors
            raise self.source.error("the pickle sets the state of something that has none", self.position)

    def update(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise self.source.error("the pickle puts items into something that is no dictionary", self.position)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if self.key(key) in target:
                raise self.source.error(f"key {shown(key)} occurs twice", self.position)
            target[key] = value

    def key(self, value: Any) -> Key:
        if not isinstance(value, Key):
            raise self.source.error(f"the pickle has a {type(value).__name__} for a key, not a name", self.position)
        if type(value) is int and value.bit_length() > _WIDEST_KEY:
            raise self.source.error(f"the pickle has a key of {value.bit_length()} bits", self.position)
        return value

    def extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], set):
            self.stack[-1].update(map(self.key, items))
        elif isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)
        else:
            raise self.source.error("the pickle appends to something that is no list", self.position)

    def pop(self, count: int) -> list[Any]:
        start = len(self.stack) - count
        if start < (self.marks[-1] if self.marks else 0):
            raise self.source.error("the pickle takes more than it made", self.position)
        items = self.stack[start:]
        del self.stack[start:]
        return items


def _swap_names(m: _Machine) -> None:
    module, name = m.pop(2)
    m.find(module, name)


def _remember(m: _Machine, index: int) -> None:
    m.memo[index] = m.stack[-1]


_ACTIONS: dict[int, Callable[[_Machine], Any]] = {
    0x80: lambda m: m.take(1),  # PROTO
    0x95: lambda m: m.take(8),  # FRAME: only a hint for buffering
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("0"): lambda m: m.pop(1),
    ord("2"): lambda m: m.stack.append(m.stack[-1]),
    ord("t"): lambda m: m.stack.append(tuple(m.marked())),
    0x85: lambda m: m.stack.append(tuple(m.pop(1))),
    0x86: lambda m: m.stack.append(tuple(m.pop(2))),
    0x87: lambda m: m.stack.append(tuple(m.pop(3))),
    ord("l"): lambda m: m.stack.append(m.marked()),
    ord("a"): lambda m: m.extend(m.pop(1)),
    ord("e"): lambda m: m.extend(m.marked()),
    0x90: lambda m: m.extend(m.marked()),
    ord("s"): lambda m: m.update(m.pop(2)),
    ord("u"): lambda m: m.update(m.marked()),
    ord("c"): lambda m: m.find(m.line(), m.line()),
    0x93: _swap_names,
    ord("R"): lambda m: m.call(),
    0x81: lambda m: m.call(),
    ord("b"): lambda m: m.build(),
    ord("Q"): lambda m: m.stack.append(Persistent(m.pop(1)[0])),
    ord("q"): lambda m: _remember(m, m.unpack("<B")),
    ord("r"): lambda m: _remember(m, m.unpack("<I")),
    0x94: lambda m: _remember(m, len(m.memo)),
    ord("h"): lambda m: m.stack.append(m.memo[m.unpack("<B")]),
    ord("j"): lambda m: m.stack.append(m.memo[m.unpack("<I")]),
}


def numpy_array(source: Source, value: Any, name: str) -> Array | None:
    """The numpy array (or scalar) that `value` describes, as a view of the file; None if it describes no array."""
    if not isinstance(value, Call):
        return None
    with source.reading(f"tensor '{name}'"):
        return _described(source, value, name)


def _described(source: Source, value: Call, name: str) -> Array | None:
    what = f"what makes tensor '{name}'"
    if value.function in SCALAR:
        dtype, data = _exactly(source, value.args, 2, what)
        return _array(source, dtype, (), data, "C", name)
    if value.function in FROMBUFFER:
        data, dtype, shape, order = _exactly(source, value.args, 4, what)
        return _array(source, dtype, shape, data, typed.text(source, order, f"the order of tensor '{name}'", 1), name)
    if value.function in RECONSTRUCT and value.args and value.args[0] == NDARRAY and type(value.state) is tuple:
        _, shape, dtype, fortran, data = _exactly(source, value.state, 5, what)
        if type(fortran) not in (bool, int):
            raise source.error(f"the order of tensor '{name}' is {shown(fortran)}, neither true nor false")
        return _array(source, dtype, shape, data, "F" if fortran else "C", name)
    return None


def _exactly(source: Source, args: tuple[Any, ...], count: int, what: str) -> tuple[Any, ...]:
    if len(args) != count:
        raise source.error(f"{what} has {len(args)} parts, not {count}")
    return args


def _array(source: Source, dtype: Any, shape: Any, data: Any, order: str, name: str) -> Array:
    kind, data = _dtype(source, dtype, name), _bytes(source, data, name)
    expected = nbytes(source, kind, shape, name)
    if len(data) != expected:
        raise source.error(
            f"tensor '{name}' of {kind} {shown(tuple(shape), 200)} needs {expected} bytes, "
            f"the pickle holds {len(data)}"
        )  # fmt: skip
    return view(data, kind, shape) if order == "C" else view(data, kind, shape[::-1]).T


def _dtype(source: Source, value: Any, name: str) -> np.dtype[Any]:
    """bool, integer, float and complex types only: never objects, records or text."""
    if isinstance(value, Call) and value.function == DTYPE and value.args:
        code = typed.text(source, value.args[0], f"the dtype of tensor '{name}'", 8).lstrip("<>|=")
        if code[:1] in tuple("biufc") and code[1:].isdecimal() and len(code) < 4:
            order: Any = value.state[1] if type(value.state) is tuple and len(value.state) > 1 else "<"
            big = typed.text(source, order, f"the byte order of tensor '{name}'", 1) == ">"
            return np.dtype(code).newbyteorder(">" if big else "<")
    raise source.error(f"tensor '{name}' is no array of numbers")


def _bytes(source: Source, value: Any, name: str) -> memoryview:
    if isinstance(value, Call) and value.function == ENCODE:  # protocol 2 writes bytes as text
        value, encoding = _exactly(source, value.args, 2, f"what makes the bytes of tensor '{name}'")
        if typed.text(source, encoding, f"the encoding of tensor '{name}'", 8) not in ("latin1", "latin-1"):
            raise source.error(f"tensor '{name}' is text in the encoding {shown(encoding)}, not in latin1")
    if isinstance(value, str):
        source.copying(len(value), name)
        return memoryview(value.encode("latin-1"))
    if isinstance(value, memoryview):
        return value
    raise source.error(f"tensor '{name}' holds no bytes")


def leaves(source: Source, value: Any) -> Iterator[tuple[str, Any]]:
    """(dotted path, leaf) of nested dictionaries. Lists and their contents (optimiser groups) are leaves."""
    return _leaves(source, value, "", 0, itertools.count(1))


def _leaves(source: Source, value: Any, prefix: str, depth: int, entries: Iterator[int]) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield prefix, value
        return
    if depth > 16:
        raise source.error(f"'{prefix[:80]}' is nested more than 16 deep")
    for key, item in value.items():
        name = source.named(f"{prefix}.{key}" if prefix else str(key))
        if next(entries) > MOST_TENSORS:  # tables without a leaf count too: a table may hold one many times
            raise source.error(f"more than {MOST_TENSORS} entries, at '{name[:80]}'")
        yield from _leaves(source, item, name, depth + 1, entries)
