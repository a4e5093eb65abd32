"""The numbers of a ladder's levels: cross/self ratios in the network's order, later steps, and a table of it all."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from portdet.report.html import cell, section, swatch, table
from portdet.report.ladder_data import LadderReport
from portdet.report.ladder_head import index_of
from portdet.report.ladder_words import breakable, ratio, status
from portdet.report.outcome import LEVELS, Outcome, Row
from portdet.report.ratio_chart import Point, ratio_chart

ONE_STEP = ("weights", "forward", "loss", "grad", "step")
MOST_ROWS = 300  # of a level on a backend; align.json has all
_FIGURES = ("ratio", "apart by", "own noise", "cosine", "mean ulp", "off float64", "reference off")


def candidates(report: LadderReport, levels: Iterable[str]) -> list[Outcome]:
    """Outcomes of these levels with rows; held-out runs of the reference against itself have a section of their own."""
    wanted = list(levels)
    return [o for o in report.outcomes if o.level in wanted and o.rows and not _held_out(report, o)]


def _held_out(report: LadderReport, outcome: Outcome) -> bool:
    return outcome.backend == report.reference and outcome.level in (*ONE_STEP, "steps") and len(report.backends) > 1


def legend(report: LadderReport, backends: Iterable[str]) -> str:
    names = dict.fromkeys(backends)
    swatches = "".join(f"<span>{swatch(index_of(report, name))}{escape(name)}</span>" for name in names)
    return f'<div class="legend">{swatches}</div>'


def ratios(report: LadderReport) -> str:
    """One chart a level, tensors in the network's order."""
    outcomes = candidates(report, ONE_STEP)
    charts = []
    for level in ONE_STEP:
        here = [o for o in outcomes if o.level == level]
        names = list(dict.fromkeys(row.name for o in here for row in o.rows if not row.name.startswith("rule/")))
        order = {name: place for place, name in enumerate(names, 1)}
        points = [
            Point(order[row.name], row.ratio, row.name, index_of(report, o.backend), row.guilty, row.status == "kink")
            for o in here for row in o.rows if row.name in order
        ]  # fmt: skip
        drawn = [point for point in points if point.ratio > 0]
        if drawn:
            chart = ratio_chart(points, "tensors in the network's order")
            same = len(points) - len(drawn)
            note = f'<p class="note">{same:,} more are the same bit for bit.</p>' if same else ""
            charts.append(f'<div class="card"><h3>{level}</h3>{chart}{note}</div>')
    if not charts:
        return ""
    body = f'{legend(report, (o.backend for o in outcomes))}<div class="charts">{"".join(charts)}</div>'
    note = (
        "How far a backend lies from the reference, divided by how far the reference lies from itself when weights and "
        "inputs are moved by one unit in the last place. Crosses are guilty, rings are kinks; rest on a point to read "
        "its name."
    )
    return section("Cross/self ratio by tensor", note, body, anchor="ratios")


def later_steps(report: LadderReport) -> str:
    """The level `steps`: by training step how many were checked, how many are guilty, the largest ratio."""
    outcomes = candidates(report, ["steps"])
    places = {step: x for x, step in enumerate(sorted({r.step for o in outcomes for r in o.rows if r.step >= 0}))}
    if not places:
        return ""
    points, lines = [], []
    for outcome in outcomes:
        index = index_of(report, outcome.backend)
        for step, x in places.items():
            rows = [row for row in outcome.rows if row.step == step]
            points += [_at_step(row, x, index) for row in _extremes(rows)]
            lines.append(_step_line(f"{swatch(index)}{escape(outcome.backend)}", step, rows))
    head = ["backend", "at step", "checked", "guilty", "kinks", "largest healthy ratio", "first guilty, or largest"]
    chart = ratio_chart(points, "training step", {float(x): str(step) for step, x in places.items()}, joined=True)
    body = (
        f'{legend(report, (o.backend for o in outcomes))}<div class="charts">'
        f'<div class="card"><h3>Largest ratio at each step</h3>{chart}</div></div>'
        f"{table(head, lines, kind='by-step', name='teacher-forced steps')}"
    )
    note = (
        "At each of these steps both load the reference's whole state, take one step on the same batch, and all that "
        "results is compared. Errors cannot add up, so a rule that goes wrong late (decay, schedule, average) shows."
    )
    return section("Teacher-forced steps", note, body, anchor="steps")


def _at_step(row: Row, x: int, index: int) -> Point:
    return Point(x, row.ratio or math.inf, f"step {row.step}: {row.name}", index, row.guilty)


def _extremes(rows: list[Row]) -> list[Row]:
    """The healthy row with the largest ratio, if any has one, and the guilty one with the largest."""
    healthy = [row for row in rows if row.healthy and row.ratio]
    guilty = [row for row in rows if row.guilty]
    return [max(some, key=lambda row: row.ratio) for some in (healthy, guilty) if some]


def _step_line(backend: str, step: int, rows: list[Row]) -> str:
    guilty = [row for row in rows if row.guilty]
    top = next((row for row in _extremes(rows) if not row.guilty), None)
    shown = guilty[0] if guilty else top
    kinks = sum(row.status == "kink" for row in rows)
    counts = f"{cell(f'{len(rows):,}', len(rows))}{cell(_count(len(guilty)), len(guilty))}{cell(str(kinks))}"
    return (
        f"<tr>{cell(backend)}{cell(str(step))}{counts}"
        f'{_ratio_cell(top.ratio if top else 0.0)}<td class="name">'
        f"{breakable(shown.name) if shown else ''}</td></tr>"
    )


def _count(number: int) -> str:
    return f'<span class="failed">✗ {number:,}</span>' if number else "0"


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
    figures = [_ratio_cell(row.ratio)]
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


def _ratio_cell(value: float) -> str:
    return cell(ratio(value), value) if value else cell("")


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
