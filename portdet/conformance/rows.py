"""A line of the checklist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal

from portdet.reference.distance import distance
from portdet.session import Array, Arrays

Outcome = Literal["passed", "failed", "known", "passed unexpectedly"]


@dataclass(frozen=True)
class Row:
    """One thing that was tried. `detail`: what was found, or why it failed."""

    section: str
    name: str
    mode: str
    outcome: Outcome
    detail: str = ""

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


def declared(rows: Sequence[Row], known: Mapping[str, str]) -> list[Row]:
    """Rows with what the backend declares: known failures with their reasons, and those that pass all the same.

    known: pattern of `Row.key` -> reason.
    """
    out = []
    for row in rows:
        reason = next((reason for pattern, reason in known.items() if fnmatchcase(row.key, pattern)), None)
        if reason is None:
            out.append(row)
        elif row.outcome == "failed":
            out.append(replace(row, outcome="known", detail=reason))
        else:
            detail = f"declared as a known failure ({reason}), but it passes: take it out of `known_failures`"
            out.append(replace(row, outcome="passed unexpectedly", detail=detail))
    return out


def stale(rows: Sequence[Row], known: Mapping[str, str]) -> list[Row]:
    """A failed row for each declaration that fits no row: nobody knows what it excuses."""
    return [
        Row("table", f"known_failures: {pattern}", "-", "failed", "fits no line of this list")
        for pattern in known
        if not any(fnmatchcase(row.key, pattern) for row in rows)
    ]
