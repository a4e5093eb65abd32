"""darknet's `.weights` and `.conv.NN`: a header, then float32 values with no names and no shapes.

The header is int32 major, minor, revision, then the number of images seen: uint64 from version 0.2 on, else uint32
(20 or 16 bytes; most converters skip a fixed number). The values follow the order of the `.cfg`: a convolution with
batch norm is beta, gamma, mean, variance, weight; one without is bias, weight.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from portdet.errors import PortdetError
from portdet.outside import shown
from portdet_convert.files.output import replacing
from portdet_convert.files.source import Arrays, Source, little, raw, reader


@dataclass(frozen=True)
class Conv:
    """One convolution: its canonical path, channels, kernel side, and whether batch norm follows."""

    name: str
    cin: int
    cout: int
    kernel: int
    norm: bool = True

    @property
    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Canonical name and shape of each tensor, in file order."""
        weight = (self.cout, self.cin, self.kernel, self.kernel)
        if not self.norm:
            yield from ((f"{self.name}.bias", (self.cout,)), (f"{self.name}.weight", weight))
            return
        for leaf in ("bias", "weight", "running_mean", "running_var"):
            yield f"{self.name}.norm.{leaf}", (self.cout,)
        yield f"{self.name}.conv.weight", weight

    @property
    def count(self) -> int:
        """Number of float32 values."""
        return self.cout * (self.cin * self.kernel**2 + (4 if self.norm else 1))


@dataclass(frozen=True)
class Header:
    """Version of the writing program and the images it had seen."""

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    @property
    def layout(self) -> str:
        """`struct` format of this version."""
        return "<3iQ" if self.major * 10 + self.minor >= 2 else "<3iI"

    def __str__(self) -> str:
        return f"{self.major} {self.minor} {self.revision} {self.seen}"

    @classmethod
    def parse(cls, text: str) -> Header:
        """The inverse of `str`. Raises `PortdetError` for a text that is no header that `header` would read."""
        values = [int(part) for part in text.split() if part.isdecimal() and len(part) < 21]
        if len(values) == 4 and max(values[:2]) <= 1000 and values[2] < 2**31:
            found = cls(*values)
            if found.seen < 2 ** (64 if found.layout.endswith("Q") else 32):
                return found
        raise PortdetError(f"its remark on darknet's header is {shown(text, 80)}, which is none")

    def pack(self) -> bytes:
        """The header's bytes: 20, or 16 before version 0.2."""
        return struct.pack(self.layout, self.major, self.minor, self.revision, self.seen)


def header(source: Source) -> tuple[Header, int]:
    """The header and its size in bytes. Raises `PortdetError` for versions that darknet never had."""
    major, minor, revision = struct.unpack("<3i", source.bytes(0, 12, "the darknet header"))
    if not (0 <= major <= 1000 and 0 <= minor <= 1000):
        raise source.error(
            f"the header says version {major}.{minor}.{revision}: no darknet file, or its transposed form", 0
        )
    layout = Header(major, minor).layout
    size = struct.calcsize(layout)
    return Header(*struct.unpack(layout, source.bytes(0, size, "the darknet header"))), size


@reader("darknet weight file")
def count(path: str | Path) -> int:
    """Number of float32 values after the header; an error if they end inside a value."""
    source = Source(path)
    _, start = header(source)
    values, rest = divmod(source.size - start, 4)
    if rest:
        raise source.error(
            f"{rest} bytes are left after {values} float32 values", source.size - rest, fix="the file is damaged"
        )
    return values


@reader("darknet weight file")
def read(path: str | Path, layers: Sequence[Conv]) -> Arrays:
    """The tensors of `layers`, taken from the stream in that order; every byte of the file must be used."""
    source = Source(path)
    _, position = header(source)
    needed, found = sum(layer.count for layer in layers), count(path)
    if found != needed:
        what = f"{found - needed} left over" if found > needed else f"{needed - found} missing"
        raise source.error(
            f"holds {found} float32 values, the {len(layers)} convolutions take {needed}: {what}",
            position + 4 * min(found, needed),
            fix="give the model that the file was written for, or copy the file again",
        )
    arrays: Arrays = {}
    for layer in layers:
        for name, shape in layer.tensors:
            arrays[name] = source.array(position, "<f4", shape, name)
            position += arrays[name].nbytes
    return arrays


def write(path: str | Path, arrays: Arrays, layers: Sequence[Conv], header: Header = Header()) -> None:
    """Write the tensors of `layers` in file order; each array must have its layer's shape and be float32."""
    with replacing(path) as file:
        file.write(header.pack())
        for layer in layers:
            for name, shape in layer.tensors:
                array = little(arrays[name])
                if array.shape != shape or array.dtype != np.dtype("<f4"):
                    raise PortdetError(
                        f"tensor '{name}' is {array.dtype} {array.shape}, darknet's layer takes float32 {shape}",
                        where=str(path),
                    )
                file.write(raw(array))
