"""CSV logs that cost nothing beside a step and stay true when a run is resumed."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from portdet.errors import PortdetError
from portdet.train.files import write_text

Value = str | int | float


class Journal:
    """A CSV file, one `add` a row, written in batches (at least once a second, and at the end of the `with` block).

    Columns come from the rows. `forget_after` drops the rows that a resumed run writes again.
    """

    def __init__(self, path: Path, *, every_seconds: float = 1.0) -> None:
        self.path, self.every_seconds = path, every_seconds
        self._columns: list[str] = []
        self._rows: list[list[Value]] = []
        self._written = time.monotonic()

    def forget_after(self, column: str, last: int) -> None:
        """Keep only the rows whose `column` is at most `last`; no file, or an empty one, is fine."""
        rows = self._read()
        self._columns = list(rows[0]) if rows else []
        self._write([row for row in rows if int(row[column]) <= last])

    def _read(self) -> list[dict[str, str]]:
        """The complete rows; a process that was killed may have left half a line."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if None not in row.values()]

    def _write(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO()
        table = csv.DictWriter(text, self._columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write_text(self.path, text.getvalue() if self._columns else "")

    def clear(self) -> None:
        """Start over: a new run in an existing folder."""
        self.path.unlink(missing_ok=True)

    def add(self, row: Mapping[str, Value]) -> None:
        """Append a row; a column that it lacks stays empty, one that is new is added to the file."""
        if new := [column for column in row if column not in self._columns]:
            self._add_columns(new)
        self._rows.append([row.get(column, "") for column in self._columns])
        if time.monotonic() - self._written > self.every_seconds:
            self.flush()

    def _add_columns(self, new: list[str]) -> None:
        self.flush()
        rows = self._read()
        self._columns += new
        self._write(rows)

    def flush(self) -> None:
        """Write what has been added so far."""
        rows, self._rows = self._rows, []
        self._append(*rows)
        self._written = time.monotonic()

    def _append(self, *rows: list[Value] | list[str]) -> None:
        try:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(rows)
        except OSError as error:
            raise PortdetError(
                f"cannot write {self.path}: {error.strerror}", fix="free some space and resume"
            ) from None

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()
