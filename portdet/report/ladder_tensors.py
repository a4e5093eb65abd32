"""The levels of one training step on a ladder's page: cross/self ratios in the network's order."""

from __future__ import annotations

from portdet.report.html import section
from portdet.report.ladder_data import LadderReport
from portdet.report.ladder_parts import ONE_STEP, candidates, facts, findings, index_of, legend
from portdet.report.outcome import Outcome
from portdet.report.ratio_chart import Point, ratio_chart


def ratios(report: LadderReport) -> str:
    """A card a level: tensors in the network's order, and each backend's finding in words."""
    outcomes = candidates(report, ONE_STEP)
    cards = [_card(report, level, [o for o in outcomes if o.level == level]) for level in ONE_STEP]
    if not any(cards):
        return ""
    body = f'{legend(report, (o.backend for o in outcomes))}<div class="charts levels">{"".join(cards)}</div>'
    note = (
        "How far a backend lies from the reference, divided by how far the reference lies from itself when weights and "
        "inputs are moved by one unit in the last place. Crosses are guilty, rings are kinks; rest on a point to read "
        "its name."
    )
    return section("Cross/self ratio by tensor", note, body, anchor="ratios")


def _card(report: LadderReport, level: str, outcomes: list[Outcome]) -> str:
    names = dict.fromkeys(row.name for o in outcomes for row in o.rows if not row.name.startswith("rule/"))
    order = {name: place for place, name in enumerate(names, 1)}
    points = [
        Point(order[row.name], row.ratio, row.name, index_of(report, o.backend), row.guilty, row.status == "kink")
        for o in outcomes for row in o.rows if row.name in order
    ]  # fmt: skip
    same = sum(point.ratio == 0 and not point.guilty for point in points)
    chart = ratio_chart(points, "tensors in order of appearance") if same < len(points) else ""
    note = f'<p class="note">Not drawn: {same:,} that are the same bit for bit, over all backends.</p>' if same else ""
    words = findings(report, outcomes) + facts(report, outcomes)
    return f'<div class="card"><h3>{level}</h3>{chart}{note}{words}</div>' if outcomes else ""
