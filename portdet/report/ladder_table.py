"""The table of all tensors and rules on a ladder's page, with filters."""

from __future__ import annotations

import math
from html import escape

from portdet.report.html import cell, section, swatch, table
from portdet.report.ladder_data import LadderReport
from portdet.report.ladder_parts import candidates, index_of, ratio_cell
from portdet.report.ladder_words import breakable, status
from portdet.report.outcome import LEVELS, Outcome, Row

MOST_ROWS = 300  # of a level on a backend; align.json has all
_FIGURES = ("ratio", "apart by", "own noise", "cosine", "mean ulp", "off float64", "reference off")


def tensor_table(report: LadderReport) -> str:
    """Rows of all levels, guilty ones first, then the largest ratios; filters by level, backend, verdict and name."""
    outcomes = [o for o in candidates(report, LEVELS) if o.level != "power"]
    rows = [(o, row) for o in outcomes for row in sorted(_worth(o), key=_rank)[:MOST_ROWS]]
    if not rows:
        return ""
    left = sum(len(o.rows) for o in outcomes) - len(rows)
    rows.sort(key=lambda pair: _rank(pair[1]))
    exact = any(row.error is not None for _, row in rows)
    figures = _FIGURES if exact else _FIGURES[:5]
    head = ["tensor or rule", "level", "backend", "at step", "verdict", *figures]
    body = table(
        head, (_line(report, o, row, exact) for o, row in rows), kind="tensors", long=True, name="tensors and rules"
    )
    note = "Guilty first, then the largest ratios. A click on a head sorts."
    note += f" {left:,} quieter ones are not shown; align.json has them all." if left else ""
    return section("Tensors and rules", note, _filters(outcomes) + f'<div id="rows">{body}</div>', anchor="tensors")


def _worth(outcome: Outcome) -> list[Row]:
    """Of a tensor that was looked at at several steps, the step where it was worst."""
    if outcome.level != "steps":
        return outcome.rows
    worst: dict[str, Row] = {}
    for row in outcome.rows:
        if row.name not in worst or _rank(row) < _rank(worst[row.name]):
            worst[row.name] = row
    return list(worst.values())


def _rank(row: Row) -> tuple[bool, bool, float]:
    return (
        not row.guilty,
        row.status not in ("doubtful", "unjudged"),
        -row.ratio if row.ratio == row.ratio else -math.inf,
    )


def _line(report: LadderReport, outcome: Outcome, row: Row, exact: bool) -> str:
    note = f' title="{escape(row.words)}"' if row.words else ""
    words = "" if row.tolerance or not row.words else f'<span class="words-of">{escape(row.words)}</span>'
    kind = "guilty" if row.guilty else row.status if row.status in ("kink", "doubtful") else "healthy"
    figures = [ratio_cell(row.ratio)]
    measured = row.tolerance > 0 or row.max_rel > 0
    figures.append(cell(f"{row.max_rel:.1e}", row.max_rel) if measured else cell(""))
    figures.append(cell(f"{row.tolerance:.1e}", row.tolerance) if row.tolerance else cell(""))
    figures.append(cell(f"{row.cosine:.6f}", row.cosine) if measured else cell(""))
    figures.append(cell(f"{row.signed_ulp:+.2g}", row.signed_ulp) if measured else cell(""))
    if exact:
        figures += [cell("") if e is None else cell(f"{e:.1e}", e) for e in (row.error, row.reference_error)]
    return (
        f'<tr data-level="{escape(outcome.level)}" data-backend="{escape(outcome.backend)}" data-verdict="{kind}">'
        f'<th class="name"{note}>{breakable(row.name)}{words}</th><td>{escape(outcome.level)}</td>'
        f"<td>{swatch(index_of(report, outcome.backend))}{escape(outcome.backend)}</td>"
        f"{cell(str(row.step) if row.step >= 0 else '')}<td>{status(row)}</td>{''.join(figures)}</tr>"
    )


def _filters(outcomes: list[Outcome]) -> str:
    """Shown by the script, which does the filtering."""
    verdicts = {"guilty": "guilty", "doubtful": "doubtful", "kink": "kinks", "healthy": "healthy"}
    levels, backends = (
        {name: name for name in dict.fromkeys(names)}
        for names in zip(*((o.level, o.backend) for o in outcomes), strict=True)
    )
    chosen = [
        _select("level", "all levels", levels),
        _select("backend", "all backends", backends),
        _select("verdict", "all verdicts", verdicts),
    ]
    field = '<label>name contains <input type="search" name="name" size="14"></label>'
    controls = f'{"".join(chosen)}{field}<output aria-live="polite"></output>'
    return f'<form class="filters" data-table="rows" hidden>{controls}</form>'


def _select(name: str, everything: str, options: dict[str, str]) -> str:
    choices = "".join(f'<option value="{escape(value)}">{escape(words)}</option>' for value, words in options.items())
    return f'<label>{name} <select name="{name}"><option value="">{everything}</option>{choices}</select></label>'
