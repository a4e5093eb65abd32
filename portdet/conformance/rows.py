"""A line of the checklist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from portdet.reference.distance import distance
from portdet.session import Array, Arrays, Inexact

SLACK = 4.0  # how much larger than what is found a declared size may be: processors differ

Outcome = Literal["passed", "failed", "known", "passed unexpectedly"]


@dataclass(frozen=True)
class Row:
    """One thing that was tried. `detail`: what was found, or why it failed."""

    section: str
    name: str
    mode: str
    outcome: Outcome
    detail: str = ""
    size: float | None = None  # how far it is off, in the section's own unit, where a declaration states a size

    @property
    def key(self) -> str:
        """What a backend's `known_failures` name: 'ops/mish_0 gradient'."""
        return f"{self.section}/{self.name}"

    @property
    def good(self) -> bool:
        """Whether nobody needs to look at it."""
        return self.outcome in ("passed", "known")


def near(section: str, name: str, mode: str, got: Array, want: Array, bound: float, least: float = 1e-30) -> Row:
    """Passed where `distance(got, want)` is within the bound."""
    apart = distance(got, want, least)
    if apart <= bound:
        return Row(section, name, mode, "passed", f"{apart:.1e}")
    shapes = f"; shape {got.shape} for {want.shape}" if got.shape != want.shape else ""
    return Row(section, name, mode, "failed", f"{apart:.1e} of the largest value, {bound:.0e} is allowed{shapes}")


def holds(section: str, name: str, mode: str, true: bool, otherwise: str) -> Row:
    """Passed where something is true."""
    return Row(section, name, mode, "passed" if true else "failed", "" if true else otherwise)


def same_bits(section: str, name: str, mode: str, got: Arrays, want: Arrays) -> Row:
    """Passed where every wanted array is there with the same bits."""
    apart = [key for key in want if key not in got or got[key].tobytes() != want[key].tobytes()]
    return holds(section, name, mode, not apart, f"other bits in {len(apart)} of {len(want)} arrays, first {apart[:1]}")


def declared(rows: Sequence[Row], known: Mapping[str, str | Inexact]) -> list[Row]:
    """Rows with what the backend declares: known failures with their reasons, and those that pass all the same.

    known: pattern of `Row.key` -> reason, with a size or without.
    """
    out = []
    for row in rows:
        reason = next((reason for pattern, reason in known.items() if fnmatchcase(row.key, pattern)), None)
        said = reason.reason if isinstance(reason, Inexact) else reason
        if reason is None or said is None:
            out.append(row)
        elif row.outcome == "passed":
            detail = f"declared as a known failure ({said}), but it passes: take it out of `known_failures`"
            out.append(replace(row, outcome="passed unexpectedly", detail=detail))
        elif isinstance(reason, Inexact) and (other := _other_size(row, reason.size)):
            out.append(replace(row, detail=f"{row.detail}; {other}"))
        else:
            detail = f"{said}: {row.detail}" if isinstance(reason, Inexact) else said
            out.append(replace(row, outcome="known", detail=detail))
    return out


def _other_size(row: Row, size: float) -> str:
    """What is wrong with a declared size; empty where it is the one found, or up to SLACK times as large."""
    if row.size is None:
        return "its declaration states a size, and there is none: it broke"
    if row.size > size:
        return f"{size:g} is declared in `known_failures`"
    return f"{size:g} is declared in `known_failures`, far more than there is" if size > SLACK * row.size else ""


def stale(rows: Sequence[Row], known: Mapping[str, str | Inexact]) -> list[Row]:
    """A failed row for each declaration that fits no row: nobody knows what it excuses."""
    return [
        Row("table", f"known_failures: {pattern}", "-", "failed", "fits no line of this list")
        for pattern in known
        if not any(fnmatchcase(row.key, pattern) for row in rows)
    ]
