"""Pieces that several sections of a ladder's page have: colours and order of backends, legends, findings, figures."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from portdet.report.html import cell, swatch, words_table
from portdet.report.ladder_data import LadderReport
from portdet.report.ladder_words import ratio, verdict
from portdet.report.outcome import Outcome

ONE_STEP = ("weights", "forward", "loss", "grad", "step")


def columns(report: LadderReport) -> list[str]:
    """Backends of the page, the reference first; it is left out where nothing was found on it."""
    found = {outcome.backend for outcome in report.outcomes}
    others = [name for name in dict.fromkeys([*report.backends, *found]) if name != report.reference]
    return [report.reference, *others] if report.reference in found or not others else others


def index_of(report: LadderReport, backend: str) -> int:
    """The number of a backend's colour; the reference has the first."""
    names = dict.fromkeys([report.reference, *report.backends, *(o.backend for o in report.outcomes)])
    return list(names).index(backend)


def candidates(report: LadderReport, levels: Iterable[str]) -> list[Outcome]:
    """Outcomes of these levels with rows; held-out runs of the reference against itself have a section of their own."""
    wanted = list(levels)
    return [o for o in report.outcomes if o.level in wanted and o.rows and not _held_out(report, o)]


def _held_out(report: LadderReport, outcome: Outcome) -> bool:
    return outcome.backend == report.reference and outcome.level in (*ONE_STEP, "steps") and len(report.backends) > 1


def legend(report: LadderReport, backends: Iterable[str], more: str = "") -> str:
    names = dict.fromkeys(backends)
    swatches = "".join(f"<span>{swatch(index_of(report, name))}{escape(name)}</span>" for name in names)
    return f'<div class="legend">{swatches}{more}</div>'


def findings(report: LadderReport, outcomes: list[Outcome]) -> str:
    lines = [
        f"<li>{swatch(index_of(report, o.backend))}<b>{escape(o.backend)}</b> {verdict(o, report.reference)} "
        f"{escape(o.words)}</li>"
        for o in outcomes
    ]
    return f'<ul class="findings">{"".join(lines)}</ul>'


def facts(report: LadderReport, outcomes: list[Outcome]) -> str:
    """Figures by backend, one line each."""
    names = list(dict.fromkeys(name for o in outcomes for name in o.facts))
    if not names:
        return ""
    rows = [[escape(name), *(escape(o.facts.get(name, "")) for o in outcomes)] for name in names]
    return words_table(["", *(f"{swatch(index_of(report, o.backend))}{escape(o.backend)}" for o in outcomes)], rows)


def ratio_cell(value: float) -> str:
    return cell(ratio(value), value) if value else cell("")
