"""The checklist of a backend: sections in processes of their own, so that a crash costs its own section alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from portdet.backends import load_backend
from portdet.conformance.rows import Row, declared, stale
from portdet.errors import PortdetError, nearest
from portdet.processes.child import run_child

SECTIONS = ("table", "ops", "sweep", "reductions", "layers", "models", "steps", "ranks")
WITHOUT_MODE = ("table",)
TIMEOUT = 3600.0


@dataclass
class Conformance:
    """What a backend was found to do. `rows` grow section by section."""

    backend: str
    device: str = "cpu"
    modes: Sequence[str] = ()
    threads: int = 0
    sections: Sequence[str] = SECTIONS
    rows: list[Row] = field(default_factory=list)

    def run(self, say: Callable[[str], None] = lambda _: None) -> list[Row]:
        """Try everything. A section whose process dies is a failed row. Raises PortdetError for unknown names."""
        backend = load_backend(self.backend)
        for section in self.sections:
            if section not in SECTIONS:
                raise PortdetError(f"unknown section '{section}'", fix=nearest(section, SECTIONS))
        for mode in self.modes:
            if mode not in backend.modes:
                raise PortdetError(f"{self.backend} has no mode '{mode}'", fix=nearest(mode, backend.modes))
        for section in self.sections:
            for mode in ("-",) if section in WITHOUT_MODE else self.modes or backend.modes:
                found = declared(self._section(section, mode), backend.known_failures)
                self.rows += found
                good = sum(row.good for row in found)
                say(f"{section}{'' if mode == '-' else f', {mode}'}: {good} of {len(found)}")
        if tuple(self.sections) == SECTIONS:
            self.rows += stale(self.rows, backend.known_failures)
        return self.rows

    def _section(self, section: str, mode: str) -> list[Row]:
        request = {"backend": self.backend, "section": section, "mode": mode, "device": self.device}
        try:
            answer = run_child("portdet.conformance.child", request | {"threads": self.threads}, timeout=TIMEOUT)
        except PortdetError as error:
            return [Row(section, "(the process)", mode, "failed", error.what)]
        return [Row(**row) for row in answer]

    @property
    def passed(self) -> bool:
        """Whether everything passed or is declared, and something was tried."""
        return bool(self.rows) and all(row.good for row in self.rows)

    def summary(self) -> str:
        """'torch on cpu: 812 of 815 passed, 3 are declared as known failures'."""
        count = {outcome: sum(row.outcome == outcome for row in self.rows) for outcome in ("passed", "known")}
        rest = len(self.rows) - sum(count.values())
        words = f"{self.backend} on {self.device}: {count['passed']} of {len(self.rows)} passed"
        words += f", {count['known']} are declared as known failures" if count["known"] else ""
        return words + (f", {rest} failed" if rest else "")


def text(rows: Sequence[Row], *, everything: bool = False) -> str:
    """A line for each row that needs a look (or each row), by section."""
    lines = []
    for row in rows:
        if everything or row.outcome != "passed":
            mode = "" if row.mode == "-" else f" ({row.mode})"
            lines.append(f"{row.outcome:7} {row.key}{mode}{': ' if row.detail else ''}{row.detail}")
    return "\n".join(lines)
