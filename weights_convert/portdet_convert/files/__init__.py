"""Weight files: each module reads its format into name -> array and writes it back, without any framework."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from portdet_convert.files import ckpt, darknet, npz, pdparams, pth, safetensors, zips
from portdet_convert.files.darknet import Conv
from portdet_convert.files.output import check_names
from portdet_convert.files.source import Arrays, Contents, Source, reader

READERS: dict[str, Callable[..., Contents]] = {
    "ckpt": ckpt.read, "npz": npz.read, "pdparams": pdparams.read, "pth": pth.read, "safetensors": safetensors.read,
}  # fmt: skip
WRITERS: dict[str, Callable[..., None]] = {
    "ckpt": ckpt.write, "npz": npz.write, "pdparams": pdparams.write, "pth": pth.write,
    "safetensors": safetensors.write,
}  # fmt: skip
FORMATS = (*READERS, "darknet")
MOST_SHARED = 16
"""Times that the tensors of a file may take its size. Two names of one storage (tied weights) count as two."""
HEADER = "darknet.header"
"""Metadata key of a darknet header (major minor revision seen), so that the file can come back byte for byte."""


@dataclass(frozen=True)
class WeightsFile:
    """What a file holds: its format, its arrays by the names of the file, and its metadata."""

    format: str
    arrays: Arrays
    metadata: dict[str, str] = field(default_factory=dict)


@reader("weight file")
def sniff(path: str | Path) -> str:
    """The format of a file, from its content alone: one of `FORMATS`.

    Raises `PortdetError` that shows the first bytes when it is none of them.
    """
    source = Source(path)
    head = bytes(source.data[:16])
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= length <= safetensors.MOST_HEADER:
        return "safetensors"
    if head[:2] == b"PK":
        return "pth" if any(name.endswith("/data.pkl") for name in zips.members(source)[0]) else "npz"
    if head[:1] == b"\x80":
        return "pth" if head.startswith(pth.MAGIC) else "pdparams"
    if head[:4] == ckpt.CIPHER or (head[:1] == b"\x0a" and b"\x0a" in head[2:7]):
        return "ckpt"
    major, minor, revision = (int.from_bytes(head[i : i + 4], "little") for i in (0, 4, 8))
    if len(head) >= 16 and major == 0 and minor < 100 and revision < 10_000:
        return "darknet"
    raise source.error(
        f"is no weight file that is known; it begins {head.hex(' ')}", 0, fix=f"known: {', '.join(FORMATS)}"
    )


def open_weights(path: str | Path, layers: Callable[[int], Sequence[Conv]] | None = None) -> WeightsFile:
    """Read any weight file. `layers` gives the convolutions of a darknet file of so many values, which has no names."""
    kind = sniff(path)
    if kind == "darknet":
        if layers is None:
            raise Source(path).error("is a darknet file, which has no names", fix="name the model it belongs to")
        head, _ = darknet.header(Source(path))
        return WeightsFile(kind, darknet.read(path, layers(darknet.count(path))), {HEADER: str(head)})
    arrays, remarks = READERS[kind](path)
    check_names(path, arrays)
    size = Path(path).stat().st_size
    taken = sum(array.nbytes for array in arrays.values())
    if kind != "npz" and taken > MOST_SHARED * size:  # an archive may be packed, and has a limit of its own
        what = f"its {len(arrays)} tensors take {taken} bytes of a file of {size}: too many share their values"
        raise Source(path).error(what, fix="no model shares so much: it is damaged, or made to fill a disk")
    return WeightsFile(kind, arrays, remarks)
