"""The proof of a conversion: the written file read back, and the model run with both files on every backend.

Writing and reading with the same code could cancel an error, so files are also read by code that is not portdet's: the
written one by its framework's own loader, in that framework's process; both by the safetensors package and by numpy. No
framework's loader reads the source: it might run what a foreign file holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from safetensors import SafetensorError
from safetensors.numpy import load_file

from portdet import versions
from portdet.backends import backend_names
from portdet.errors import PortdetError
from portdet.processes.child import run_child
from portdet_convert import yolov3
from portdet_convert.compare import unlike
from portdet_convert.convert import read
from portdet_convert.files import open_weights, sniff
from portdet_convert.files.source import BFLOAT16, Arrays
from portdet_convert.proof_model import Fit
from portdet_convert.yolov3_cfg import Order

TIMEOUT = 3600.0
_CHILD = "portdet_convert.proof_child"


@dataclass(frozen=True)
class Reading:
    """One reader of the source or the new file: how many tensors it found, those with a wrong name, shape or bit."""

    file: str
    reader: str
    tensors: int
    unlike: list[str]

    def __str__(self) -> str:
        if not self.unlike:
            return f"{self.file} read by {self.reader}: {self.tensors} tensors, same bits"
        count = f"{len(self.unlike)} of {self.tensors} tensors differ"
        return f"{self.file} read by {self.reader}: {count}, first '{self.unlike[0]}'"


@dataclass(frozen=True)
class BackendProof:
    """The outputs of one backend with the weights from before and after: largest differences.

    absolute, relative: between the two; relative to the largest value of the output. `first`: the first output in the
    network's order that differs, '' if none does. from_float64: of the outputs after, relative to those of the
    reference in float64 with the weights from before; it shows the backend's rounding, and is no verdict.
    """

    backend: str
    version: str
    absolute: float
    relative: float
    first: str
    from_float64: float


@dataclass
class Proof:
    """What the check of a conversion found."""

    model: str
    side: int
    outputs: str = ""
    readings: list[Reading] = field(default_factory=list)
    backends: list[BackendProof] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def failures(self) -> list[str]:
        """What is wrong, a line each."""
        wrong = [str(reading) for reading in self.readings if reading.unlike]
        return wrong + [
            f"{b.backend}: outputs differ by up to {b.absolute:.3g} ({b.relative:.2g} relative), first in {b.first}"
            for b in self.backends
            if b.first
        ]

    def lines(self) -> list[str]:
        """Who read the files, and what was compared."""
        return [*map(str, self.readings), f"{self.outputs}; {self.model} on one image of {self.side} px"]

    def require(self, where: str) -> None:
        """Raises `PortdetError` if anything is wrong."""
        if wrong := self.failures():
            raise PortdetError(
                f"the check failed: {'; '.join(wrong)}",
                where=where,
                fix="nothing was written; this is an error of portdet or of the framework: please report it",
            )

    def facts(self) -> dict[str, Any]:
        """For the report. What is not finite is null, which JSON has no number for."""
        facts = {"passed": not self.failures(), **asdict(self)}
        for row in facts["backends"]:
            row.update(
                {key: None for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)}
            )
        return facts

    def table(self) -> Table:
        """Backend by backend."""
        table = Table("backend", "before/after", "relative", "first difference", "from float64")
        for b in self.backends:
            numbers = f"{b.absolute:.3g}", f"{b.relative:.3g}", b.first or "none", f"{b.from_float64:.2g}"
            table.add_row(f"{b.backend} {b.version}", *numbers, style="" if not b.first else "red")
        for name in self.absent:
            table.add_row(name, "not installed, not checked")
        return table


def installed() -> tuple[list[str], list[str]]:
    """Backends to check with, and those whose framework is not installed. Raises `PortdetError` if none is."""
    names = backend_names()
    absent = [name for name in names if name in versions.FRAMEWORKS and not versions.framework(name)]
    if len(absent) == len(names):
        raise PortdetError(
            f"none of {', '.join(names)} is installed, so no model can run with the weights",
            fix=f"pip install 'portdet[{absent[0]}]', or convert without --check",
        )
    return [name for name in names if name not in absent], absent


def prove(before: Path, after: Path, file_format: str, given: Arrays, model: Fit) -> Proof:
    """Read both files with every reader that may, and run the model with the weights of both files.

    given: the arrays of `before` by canonical name, those of `model`. Raises `PortdetError` where a reader or a backend
    fails.
    """
    present, absent = installed()
    back = read_back(after, given)
    proof = Proof(model.description, model.side, absent=absent)
    proof.readings.append(Reading("new file", "portdet", len(back), unlike(back, given)))
    proof.readings += [*_other_reader("source", before), *_other_reader("new file", after)]
    request = {
        "section": model.section,
        "side": model.side,
        "before": str(before),
        "after": str(after),
        "format": file_format,
    }
    for name in present:
        try:
            said = run_child(_CHILD, {"backend": name, **request}, timeout=TIMEOUT)
        except PortdetError as error:
            raise PortdetError(f"{name}: {error.what}", fix=error.fix, where=error.where) from None
        if "loader" in said:
            proof.readings.append(Reading("new file", said["loader"], said["tensors"], said["unlike"]))
        proof.outputs = said["outputs"]
        proof.backends.append(
            BackendProof(name, said["version"], **said["difference"], from_float64=said["reference"]["relative"])
        )
    return proof


def read_back(path: Path, like: Arrays) -> Arrays:
    """The written file under canonical names; a darknet file has the convolutions of `like`."""
    shapes = {name: array.shape for name, array in like.items()}
    return read(path, Order(lambda _: yolov3.layers_of(shapes), []))[1].arrays


def _other_reader(what: str, path: Path) -> list[Reading]:
    """What the reader of the format's own library finds in a file, for those that may be trusted with any file."""
    readers: dict[str, Callable[[Path], Arrays]] = {"npz": _numpy_load, "safetensors": load_file}
    form = sniff(path)
    if form not in readers:
        return []
    ours = open_weights(path).arrays
    if form == "safetensors" and any(array.dtype == BFLOAT16 for array in ours.values()):
        return []  # numpy has none, and so the package refuses it there
    name = "numpy.load" if form == "npz" else "safetensors.numpy.load_file"
    try:
        theirs = readers[form](path)
    except (SafetensorError, ValueError, OSError) as error:
        raise PortdetError(f"{name} does not read the {what}: {error}", where=str(path)) from None
    return [Reading(what, name, len(theirs), unlike(theirs, ours))]


def _numpy_load(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)
