"""What an attack found, one row a kind of case."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """`held` of `cases` cases ended as they must; `first_failure` says how the first other one ended."""

    attack: str
    cases: int
    held: int
    first_failure: str = ""


def table(rows: list[Row]) -> str:
    """attack, cases, held, not held with the first example."""
    wide = max([len("attack"), *(len(row.attack) for row in rows)])
    lines = [f"{'attack':<{wide}}  {'cases':>7}  {'held':>7}  {'not held':>8}"]
    for row in rows:
        lines.append(f"{row.attack:<{wide}}  {row.cases:>7}  {row.held:>7}  {row.cases - row.held:>8}".rstrip())
        if row.held < row.cases:
            lines += [f"    {line}" for line in row.first_failure.splitlines()[:12]]
    return "\n".join(lines)
