"""The level `steps` on a ladder's page: what was found at each training step."""

from __future__ import annotations

import math
from html import escape

from portdet.report.html import cell, section, swatch, table
from portdet.report.ladder_data import LadderReport
from portdet.report.ladder_parts import candidates, facts, findings, index_of, legend, ratio_cell
from portdet.report.ladder_words import breakable
from portdet.report.outcome import Row
from portdet.report.ratio_chart import Point, ratio_chart


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
    body = findings(report, outcomes) + (
        f'{legend(report, (o.backend for o in outcomes))}<div class="charts">'
        f'<div class="card"><h3>Largest ratio at each step</h3>{chart}</div></div>'
        f"{table(head, lines, kind='by-step', name='teacher-forced steps')}{facts(report, outcomes)}"
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
        f'{ratio_cell(top.ratio if top else 0.0)}<td class="name">'
        f"{breakable(shown.name) if shown else ''}</td></tr>"
    )


def _count(number: int) -> str:
    return f'<span class="failed">✗ {number:,}</span>' if number else "0"
