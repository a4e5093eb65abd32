"""`results.csv`: one row an epoch, columns that keep their names and order over versions.

    epoch,time,step,lr,loss,<parts of the loss>,AP,AP50,...,ARl,images_per_s

A cell is empty where nothing was measured: an epoch without validation, or a metric of COCO's without ground truth (its
-1). The last row of a run that max_steps ended within an epoch is of that part of it, and goes when the run goes on.
Floats are written with all their digits, so that two runs can be compared bit for bit.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from portdet.errors import PortdetError, nearest
from portdet.evaluate.coco_map import NAMES, defined
from portdet.files import write_text
from portdet.outside import read_csv, shown

Row = dict[str, float]
_INTEGERS = ("epoch", "step")


class ResultsLog:
    """The rows of a run; every `append` leaves a whole file on the disk.

    `losses`: names of the loss's parts, in the order of the columns ('loss', the total, comes first by itself).
    `resume_epoch`: rows after it are dropped, those up to it stay; None starts a new file. `scored`: which epochs have
    metrics; others, which got some where a run was ended, lose them.
    """

    def __init__(
        self,
        path: Path,
        losses: Sequence[str],
        *,
        resume_epoch: int | None = None,
        scored: Callable[[int], bool] = lambda epoch: True,
    ) -> None:
        self.path = Path(path)
        parts = [name for name in losses if name != "loss"]
        self.columns = ("epoch", "time", "step", "lr", "loss", *parts, *NAMES, "images_per_s")
        self.rows: list[Row] = []
        if resume_epoch is not None and self.path.exists():
            kept = [self._known(row) for row in read(self.path) if row["epoch"] <= resume_epoch]
            self.rows = [
                {name: value for name, value in row.items() if name not in NAMES or scored(int(row["epoch"]))}
                for row in kept
            ]
        self._write(self.rows)

    def append(self, row: Mapping[str, float]) -> None:
        """Add an epoch. A column without value stays empty; an unknown column or an old epoch raises PortdetError."""
        if "epoch" not in row or (self.rows and row["epoch"] <= self.rows[-1]["epoch"]):
            last = self.rows[-1]["epoch"] if self.rows else 0
            raise PortdetError(f"epoch {row.get('epoch')} after epoch {last:g}", where=str(self.path))
        self._write([*self.rows, self._known(row)])

    def _known(self, row: Mapping[str, float]) -> Row:
        for name in row:
            if name not in self.columns:
                raise PortdetError(f"no column '{name}' in {self.path.name}", fix=nearest(name, self.columns))
        return _scored(row)

    def _write(self, rows: list[Row]) -> None:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([_cell(name, row.get(name)) for name in self.columns] for row in rows)
        write_text(self.path, out.getvalue())
        self.rows = rows


def read(path: Path) -> list[Row]:
    """The rows of a `results.csv`, without the empty cells, and those of metrics that are undefined (-1, NaN).

    Raises PortdetError naming file and line.
    """
    lines = read_csv(path, fix="name a run folder's results.csv")
    if not lines or lines[0][:1] != ["epoch"] or len(set(lines[0])) < len(lines[0]):
        raise PortdetError("not a results file: the first column is not 'epoch', or one stands twice", where=str(path))
    rows = []
    for number, line in enumerate(lines[1:], 2):
        where = f"{path}:{number}"
        if len(line) != len(lines[0]):
            raise PortdetError(f"{len(line)} cells under {len(lines[0])} columns", where=where)
        if not line[0].isdecimal() or len(line[0]) > 9:
            raise PortdetError(f"the epoch is {shown(line[0])}, not a number", where=where)
        try:
            row = {name: float(cell) for name, cell in zip(lines[0], line, strict=True) if cell}
        except ValueError as error:
            raise PortdetError(f"not a number: {str(error)[:200]}", where=where) from None
        rows.append(_scored(row))
    return rows


def _scored(row: Mapping[str, float]) -> Row:
    """Without metrics that are undefined."""
    return {name: value for name, value in row.items() if name not in NAMES or defined(value)}


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if name in _INTEGERS else repr(float(value))
