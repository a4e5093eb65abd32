"""A weight file as memory that may not be trusted: mapped, and every read checked against its length first."""

from __future__ import annotations

import math
import mmap
import os
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from portdet.errors import PortdetError
from portdet.outside import plain, shown

Array = NDArray[Any]
Arrays = dict[str, Array]
Contents = tuple[Arrays, dict[str, str]]
"""What a file holds: its arrays by name, and its remarks."""
P = ParamSpec("P")
R = TypeVar("R")

# numpy has no bfloat16. A one-field record keeps the bits, tells it from uint16, and survives .npz.
BFLOAT16 = np.dtype([("bfloat16", "<u2")])

MOST_TENSORS = 100_000  # in one file; the largest models have some thousands
MOST_DIMS = 32  # numpy's own limit
LONGEST_NAME = 1000
LONGEST_ERROR = 600  # characters of a message about a file, whose names may be long


def as_float32(array: Array) -> Array:
    """float16 and bfloat16 widened exactly, float64 rounded; float32 as it is."""
    if array.dtype == BFLOAT16:
        return (array.view("<u2").astype("<u4") << 16).view("<f4")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which `checks.finite` refuses
        return np.asarray(array, dtype="<f4")


def dtype_name(array: Array) -> str:
    """`float32`, `bfloat16`, ..."""
    return "bfloat16" if array.dtype == BFLOAT16 else array.dtype.name


class Source:
    """A regular file, mapped read-only. Arrays are views into the map, so reading costs no memory of its own.

    Raises `PortdetError` for what is missing, empty, no regular file, or shorter than what is asked of it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            if not stat.S_ISREG(os.stat(self.path).st_mode):  # before open: opening a pipe would wait for a writer
                raise PortdetError("is not a regular file", where=plain(str(path)), fix="give the weight file itself")
            with self.path.open("rb") as file:
                self.size = os.fstat(file.fileno()).st_size
                if self.size == 0:
                    raise PortdetError("is empty", where=plain(str(path)), fix="download or copy the file again")
                self.data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                self._copied = 0
                self.steps = 0  # that its pickles have taken
        except OSError as error:
            raise PortdetError(f"cannot be read: {error.strerror}", where=plain(str(path))) from None

    def error(self, what: str, offset: int | None = None, fix: str = "") -> PortdetError:
        """A `PortdetError` that names the file and the byte."""
        where = str(self.path) if offset is None else f"{self.path}, byte {offset}"
        said = plain(what[:LONGEST_ERROR]) + ("..." if len(what) > LONGEST_ERROR else "")
        return PortdetError(said, where=plain(where), fix=fix)

    def bytes(self, offset: int, count: int, what: str) -> memoryview:
        """`count` bytes from `offset` on, as a view; `what` names them in the error when the file is too short."""
        if count < 0 or offset < 0 or offset + count > self.size:
            raise self.error(
                f"{what} needs {count} bytes, the file has {max(self.size - offset, 0)} left of {self.size}",
                offset,
                fix="the file is truncated or damaged: download or copy it again",
            )
        return self.data[offset : offset + count]

    def named(self, name: str, offset: int | None = None) -> str:
        """`name`, which no tensor has that is longer than `LONGEST_NAME`."""
        if len(name) > LONGEST_NAME:
            raise self.error(f"a name of {len(name)} characters: '{name[:80]}'...", offset)
        return name

    def counted(self, count: int, what: str = "tensors") -> None:
        """Raises where a file has more than `MOST_TENSORS` of something: before work is done on each of them."""
        if count > MOST_TENSORS:
            raise self.error(f"more than {MOST_TENSORS} {what}", fix="no model has so many: it is no weight file")

    def copying(self, count: int, name: str) -> None:
        """Counts the bytes that reading copies: twice the file at most, however often it refers to the same ones."""
        self._copied += count
        if self._copied > 2 * self.size:
            raise self.error(f"tensor '{name}' and those before it unpack to {self._copied} bytes from {self.size}")

    @contextmanager
    def reading(self, what: str, offset: int | None = None) -> Iterator[None]:
        """Whatever damage makes Python stumble inside becomes an error that names `what` and the byte."""
        try:
            yield
        except DAMAGE as error:
            raise self.error(
                f"{what} is damaged: {error or type(error).__name__}", offset, fix="download or copy the file again"
            ) from None

    def array(self, offset: int, dtype: str | np.dtype[Any], shape: Sequence[int], name: str) -> Array:
        """The tensor `name` of that dtype and shape, stored in C order from `offset` on, as a view."""
        kind = np.dtype(dtype)
        return view(self.bytes(offset, nbytes(self, kind, shape, name), f"tensor '{name}'"), kind, shape)


def nbytes(source: Source, dtype: np.dtype[Any], shape: Sequence[int], name: str) -> int:
    """Bytes that the declared shape takes, in exact integers; an error if no array can have that shape."""
    if type(shape) not in (tuple, list):
        raise source.error(f"tensor '{name}' declares a shape that is no list of integers: {shown(shape, 80)}")
    if len(shape) > MOST_DIMS:  # before the product: it may have millions of digits
        raise source.error(f"tensor '{name}' declares {len(shape)} dimensions, {MOST_DIMS} are possible")
    if not all(type(n) is int for n in shape):
        raise source.error(f"tensor '{name}' declares a shape that is no list of integers: {shown(shape, 80)}")
    if any(n < 0 or n >= 2**63 for n in shape) or math.prod(shape) >= 2**62:
        raise source.error(f"tensor '{name}' declares the impossible shape {shown(tuple(shape), 200)}")
    return math.prod(shape) * dtype.itemsize


def view(data: memoryview, dtype: np.dtype[Any], shape: Sequence[int]) -> Array:
    """The bytes as an array, without a copy."""
    if not len(data):
        return np.empty(tuple(shape), dtype)
    return np.frombuffer(data, dtype).reshape(tuple(shape))


def little(array: Array) -> Array:
    """The array in C order and little-endian, the one layout that is written; a copy only where it is not so yet."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)


def raw(array: Array) -> memoryview:
    """The bytes of an array in C order, without a copy."""
    return array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")


DAMAGE = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError, OSError, RecursionError,
    RuntimeError, SyntaxError, TypeError, ValueError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@contextmanager
def _naming(path: str | Path, kind: str) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise PortdetError(
            f"is not a readable {kind}: {plain(str(error)[:LONGEST_ERROR]) or type(error).__name__}",
            where=plain(str(path)),
            fix="the file is damaged: download or copy it again",
        ) from None


def reader(kind: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates `read(path, ...)`: whatever damage makes Python stumble becomes an error that names the file."""

    def wrap(read: Callable[P, R]) -> Callable[P, R]:
        @wraps(read)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            with _naming(str(args[0]), kind):
                return read(*args, **kwargs)

        return checked

    return wrap
