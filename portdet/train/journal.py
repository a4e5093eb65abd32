"""The step log: a CSV file that costs nothing beside a step and stays true when a run is resumed."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from portdet.errors import PortdetError
from portdet.files import write_text
from portdet.outside import read_csv, shown
from portdet.processes import guard


class Journal:
    """A CSV file, one `add` a row, written at most once a second, on `flush` and at the end of the `with` block.

    The first row sets the columns. `forget_after` drops the rows that a resumed run writes again; a file that an older
    version began keeps its columns, also if there are more by now.
    """

    def __init__(self, path: Path, *, every_seconds: float = 1.0) -> None:
        self.path, self.every_seconds = path, every_seconds
        self._columns: list[str] = []
        self._resumed = False
        self._rows: list[list[Any]] = []
        self._written = time.monotonic()

    def forget_after(self, column: str, last: int) -> None:
        """Keep the complete rows whose `column` is at most `last`; a process that was killed may leave half a line."""
        if not self.path.exists():
            return
        lines = read_csv(self.path, fix="move the file away: the log starts anew")
        if not lines:
            return
        if column not in lines[0] or len(set(lines[0])) < len(lines[0]):
            raise PortdetError(
                f"the columns are {shown(lines[0])}, without {column} or with one twice", where=str(self.path),
                fix="move the file away: the log starts anew",
            )  # fmt: skip
        self._columns, self._resumed, place = lines[0], True, lines[0].index(column)
        whole = [row for row in lines[1:] if len(row) == len(self._columns) and row[place].isdecimal()]
        kept = [row for row in whole if len(row[place]) < 16 and int(row[place]) <= last]
        write_text(self.path, "".join(",".join(row) + "\n" for row in [self._columns, *kept]))

    def clear(self) -> None:
        """Start over: a new run in an existing folder."""
        self.path.unlink(missing_ok=True)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row with the columns of the first one."""
        if not self._columns:
            self._columns = list(row)
            self._append([self._columns])
        if self._resumed and row.keys() > set(self._columns):
            row = {name: row[name] for name in self._columns}
        if list(row) != self._columns:
            raise PortdetError(f"columns were {self._columns} and are {list(row)}", where=str(self.path))
        self._rows.append(list(row.values()))
        if time.monotonic() - self._written > self.every_seconds:
            self.flush()

    def flush(self) -> None:
        """Write what has been added so far."""
        rows, self._rows = self._rows, []
        self._append(rows)
        self._written = time.monotonic()

    def _append(self, rows: Sequence[Sequence[Any]]) -> None:
        if not rows:
            return
        guard.check(self.path)
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
        except OSError as error:
            guard.check(self.path)
            raise PortdetError(
                f"cannot write {self.path}: {error.strerror}", fix="free some space and resume"
            ) from error

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
