"""Dumps: a safetensors file of named tensors in their order of appearance, written and read one tensor at a time.

Any safetensors reader opens one. The order is that of the data in the file. Names are LEVEL/NAME: 'forward/stem.conv',
'grad/head.bias', 'step3/momentum/head.bias'.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from portdet.errors import PortdetError, nearest
from portdet.files import replacing
from portdet.outside import shown

Array = NDArray[Any]

RESERVED = 1 << 16  # bytes for the header, about 500 tensors; a longer one costs a second copy of the file
_LARGEST_HEADER = 100_000_000  # safetensors' own limit
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip
_NAMES = {np.dtype(text): name for name, text in _DTYPES.items() if name != "BF16"}


class DumpWriter:
    """Writes a dump; the file appears whole when the `with` block ends without an error.

    about: what the dump is of (program, version, seed, ...), kept in the file's metadata.
    """

    def __init__(self, path: str | Path, about: Mapping[str, str] | None = None) -> None:
        self.path, self.about = Path(path), dict(about or {})
        self._entries: dict[str, dict[str, Any]] = {}
        self._end = 0
        self._stack = ExitStack()

    def __enter__(self) -> DumpWriter:
        self._temporary = self._stack.enter_context(replacing(self.path))
        self._file: IO[bytes] = self._stack.enter_context(self._temporary.open("wb+"))
        self._file.write(b" " * (8 + RESERVED))
        return self

    def put(self, name: str, array: Array) -> None:
        """Append a tensor. A name twice, or a dtype that safetensors lacks, raises PortdetError."""
        if name in self._entries:
            raise PortdetError(f"'{name}' is in the dump already", where=str(self.path), fix="number repeated calls")
        array = np.asarray(array)
        little = array.dtype.newbyteorder("<")
        if little not in _NAMES:
            raise PortdetError(f"'{name}' is {array.dtype}, which safetensors cannot hold", where=str(self.path))
        data = np.ascontiguousarray(array, little).reshape(-1).view(np.uint8)
        self._file.write(data.data)
        place = [self._end, self._end + data.size]
        self._entries[name] = {"dtype": _NAMES[little], "shape": list(array.shape), "data_offsets": place}
        self._end = place[1]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        except BaseException as failure:
            self._stack.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._stack.__exit__(kind, error, trace)

    def _finish(self) -> None:
        header = json.dumps({"__metadata__": self.about, **self._entries}).encode()
        space = RESERVED
        if len(header) > RESERVED:
            space = -(-len(header) // 8) * 8
            _shift(self._file, 8 + RESERVED, 8 + space, self._end)
        self._file.seek(0)
        self._file.write(space.to_bytes(8, "little") + header.ljust(space))
        self._file.flush()


def _shift(file: IO[bytes], start: int, to: int, length: int, block: int = 1 << 24) -> None:
    """Move `length` bytes towards the end of a file, the last block first."""
    for end in range(length, 0, -block):
        begin = max(0, end - block)
        file.seek(start + begin)
        data = file.read(end - begin)
        file.seek(to + begin)
        file.write(data)


@dataclass(frozen=True)
class _Entry:
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


class Dump(Mapping[str, Array]):
    """A dump as a mapping in order of appearance; a tensor is read when it is asked for. bfloat16 comes as float32.

    Raises PortdetError for a file that is damaged or none of safetensors.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.about: dict[str, str] = {}
        self._entries: dict[str, _Entry] = {}
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for
                raise ValueError("not a regular file")
            with self.path.open("rb") as file:
                self._read_header(file, os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise PortdetError(f"cannot read {path}: {error.strerror}", fix="name a dump (.safetensors)") from None
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            raise PortdetError(
                f"not a safetensors file: {str(error)[:200]}", where=str(path), fix="write it anew"
            ) from None

    def _read_header(self, file: IO[bytes], size: int) -> None:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        table = json.loads(file.read(length))
        self.about = {str(key): str(value) for key, value in table.pop("__metadata__", {}).items()}
        data = 8 + length
        for name, entry in sorted(table.items(), key=lambda item: item[1]["data_offsets"]):
            start, end = (int(offset) for offset in entry["data_offsets"])
            shape = tuple(int(side) for side in entry["shape"])
            wanted = int(np.prod(shape, dtype=object)) * np.dtype(_DTYPES[entry["dtype"]]).itemsize
            if min(shape, default=1) < 0 or start < 0 or end - start != wanted or data + end > size:
                raise ValueError(f"{shown(name)} reaches beyond the file, or is not of its shape")
            self._entries[name] = _Entry(entry["dtype"], shape, data + start, wanted)

    def __getitem__(self, name: str) -> Array:
        entry = self._entries.get(name)
        if entry is None:
            raise KeyError(f"no tensor '{name}' in {self.path}; {nearest(name, self._entries)}")
        with self.path.open("rb") as file:
            file.seek(entry.start)
            array = np.frombuffer(file.read(entry.size), _DTYPES[entry.dtype]).reshape(entry.shape)
        return (array.astype(np.uint32) << 16).view(np.float32) if entry.dtype == "BF16" else array.copy()

    def __contains__(self, name: object) -> bool:
        """Mapping's own way reads the tensor, or looks for the nearest name that there is."""
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
