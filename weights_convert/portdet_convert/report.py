"""What a conversion did to every tensor, as JSON, as a table and in one line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from portdet.console import cell
from portdet.files import write_text
from portdet_convert.files.source import BFLOAT16


@dataclass(frozen=True)
class Row:
    """One tensor: names and dtypes in both files, shape, what was done to it, SHA-256 of its bytes (16 digits)."""

    source: str
    target: str
    shape: tuple[int, ...]
    dtype: str
    target_dtype: str
    transform: str
    checksum: str

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the target file."""
        bfloat16 = self.target_dtype == "bfloat16"
        return self.values * (BFLOAT16 if bfloat16 else np.dtype(self.target_dtype)).itemsize


@dataclass
class Report:
    """What a conversion did: every tensor; what was skipped, by name, and why; what the check of the result found.

    notes: what the user should know, a line each. shared: tensors that lie in the bytes of another in the source, and
    in which; in the target each has its own. untransposed: matrices of a model that is not known, see `layouts`.
    """

    source: str
    target: str
    source_format: str
    target_format: str
    naming: str
    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    shared: dict[str, str] = field(default_factory=dict)
    untransposed: list[str] = field(default_factory=list)
    check: dict[str, Any] | None = None

    def json(self) -> str:
        """The report as JSON, with the counts of the summary."""
        counts = {"tensors": len(self.rows), "values": self._values(), "bytes": self._bytes()}
        return json.dumps({**asdict(self), **counts}, indent=1)

    def table(self) -> Table:
        """The report for the terminal."""
        table = Table("source", "target", "shape", "dtype", "transform", "sha256")
        for row in self.rows:
            dtype = row.dtype if row.dtype == row.target_dtype else f"{row.dtype} -> {row.target_dtype}"
            table.add_row(cell(row.source), cell(row.target), str(row.shape), dtype, row.transform, row.checksum)
        for name, reason in self.skipped.items():
            table.add_row(cell(name), f"skipped: {reason}")
        return table

    def summary(self) -> str:
        """One line for the log."""
        return (
            f"{self.source} ({self.source_format}, {self.naming} names) -> {self.target} ({self.target_format}): "
            f"{len(self.rows)} tensors, {self._values():,} values, {self._bytes():,} bytes, "
            f"{counted(self.skipped.values())} skipped"
        )

    def save(self, path: str | Path) -> None:
        """Write the JSON form."""
        write_text(path, self.json())

    def _values(self) -> int:
        return sum(row.values for row in self.rows)

    def _bytes(self) -> int:
        return sum(row.nbytes for row in self.rows)


def counted(reasons: Iterable[str]) -> str:
    """How many, and of which reason how many: `3 (2 optimiser state, 1 state of the training)`."""
    counts = Counter(reasons)
    listed = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    return f"{counts.total()} ({listed})" if counts else "0"
