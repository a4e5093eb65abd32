"""The upper levels of a ladder: free running, whole trainings with their equivalence tests, several processes."""

from __future__ import annotations

import math
from dataclasses import replace
from html import escape
from pathlib import Path

from portdet.report import align_page
from portdet.report.html import cell, section, swatch, table, words_table
from portdet.report.ladder_data import LadderReport
from portdet.report.ladder_parts import facts, findings, index_of, legend
from portdet.report.ladder_words import status
from portdet.report.outcome import Interval, Outcome, Series
from portdet.report.svg import Background, Curve, line_chart

_TONES = {"equivalent": ("ok", "✓ equivalent"), "different": ("failed", "✗ different")}
_WIDE, _HIGH = 180, 26  # of an interval's drawing


def operations(report: LadderReport) -> str:
    note = "Value, type and gradient of each operation that the model has, against NumPy in float64."
    return _level(report, "ops", "Single operations", note)


def free_running(report: LadderReport) -> str:
    note = (
        "Each backend trains by itself. Rounding errors grow with every step, in the reference against itself too: "
        "the shaded band is what its own one-ulp runs span. Up to the horizon losses are compared step by step; after "
        "it they only have to stay in the band."
    )
    return _level(report, "free", "Free running", note)


def ranks(report: LadderReport) -> str:
    note = "The same global batch on one process and divided among several has to give the same gradients and state."
    return _level(report, "ranks", "One process and several", note)


def training(report: LadderReport, folder: Path) -> str:
    """Curves over the seeds, the equivalence tests, then the tables of the first seed's runs."""
    outcomes = [o for o in report.outcomes if o.level == "train"]
    said = "" if report.training else _guilty(report, outcomes)  # its checks say it
    body = findings(report, outcomes) if outcomes else ""
    body += charts(report, "train") + _tests(report) + said + facts(report, outcomes)
    if report.training:
        left_out = {"Ran on", *(["Curves"] if _series(report, "train") else [])}
        parts = [part for part in align_page.parts(report.training, folder) if part[0] not in left_out]
        body += "".join(section(*part, level=3) for part in parts)
    note = "Paired: the same initial weights and the same batches. Shaded: what a backend's own seeds span."
    return section("Training", note, body, anchor="train") if body else ""


_TOST = (
    "Shown to be equivalent is what has its whole 90 % interval (drawn as a bar) inside the margin of ±{:g} (shaded): "
    "two one-sided tests at 5 %. Power is the chance that two equal systems are found equivalent with so many pairs."
)


_HEAD = (
    "backend", "score", "verdict", "against the margin", "mean difference", "90 % interval", "pairs", "power",
    "pairs needed",
)  # fmt: skip


def _tests(report: LadderReport) -> str:
    found = [(o, _judged(o, interval)) for o in report.outcomes if o.level == "train" for interval in o.intervals]
    if not found:
        return ""
    edges = [abs(x) for _, i in found for x in (i.low, i.high, i.mean, i.margin) if math.isfinite(x)]
    rows = (_interval_row(report, o, interval, 1.15 * max(edges)) for o, interval in found)
    note = f'<h3>Equivalence</h3><p class="quiet">{_TOST.format(report.margin)}</p>'
    return note + table(_HEAD, rows, kind="tests", name="equivalence")


def _judged(outcome: Outcome, it: Interval) -> Interval:
    """Runs that have learnt nothing lie close to each other, too: what the level leaves unjudged is not equivalent."""
    unjudged = any(row.name == it.name and row.status == "unjudged" for row in outcome.rows)
    return replace(it, verdict="inconclusive") if unjudged else it


def _interval_row(report: LadderReport, outcome: Outcome, it: Interval, scale: float) -> str:
    kind, words = _TONES.get(it.verdict, ("unsure", f"? {it.verdict}"))
    bounded = math.isfinite(it.low) and math.isfinite(it.high)
    return (
        f"<tr><td>{swatch(index_of(report, outcome.backend))}{escape(outcome.backend)}</td>{cell(escape(it.name))}"
        f'<td><span class="{kind}">{escape(words)}</span></td><td>{interval_bar(it, scale)}</td>'
        f"{cell(f'{it.mean:+.4f}', it.mean)}"
        f"{cell(f'{it.low:+.4f} to {it.high:+.4f}' if bounded else 'unknown: one pair')}{cell(str(it.runs))}"
        f"{cell('' if it.power is None else f'{it.power:.0%}', it.power)}"
        f"{cell('' if it.needed is None else str(it.needed or 'over 1000'))}</tr>"
    )


def interval_bar(it: Interval, scale: float) -> str:
    """The interval as a bar with its mean, over the margin's band; an unbounded one ends in arrows at the edges."""

    def at(value: float) -> float:
        return round(_WIDE / 2 * (1 + min(max(value / scale, -1), 1)), 1)

    kind = {"equivalent": "good", "different": "bad"}.get(it.verdict, "open")
    low, high, left, right = at(it.low), at(it.high), at(-it.margin), at(it.margin)
    words = f"mean {it.mean:+.4f}, 90 % interval {it.low:+.4f} to {it.high:+.4f}, margin {it.margin:g}"
    middle = _HIGH / 2
    arrows = (
        ""
        if math.isfinite(it.high)
        else f'<path class="bar {kind}" d="M6 {middle - 5}l-5 5l5 5M{_WIDE - 6} {middle - 5}l5 5l-5 5"/>'
    )
    return (
        f'<svg class="interval" viewBox="0 0 {_WIDE} {_HIGH}" role="img" aria-label="{words}"><title>{words}</title>'
        f'<rect class="margin" x="{left}" y="0" width="{right - left:g}" height="{_HIGH}"/>'
        f'<path class="mark" d="M{at(0)} 0V{_HIGH}"/><path class="bar {kind}" d="M{low} {middle}H{high}"/>{arrows}'
        f'<circle class="mean {kind}" cx="{at(it.mean)}" cy="{middle}" r="5"/></svg>'
    )


def _level(report: LadderReport, level: str, title: str, note: str) -> str:
    body = _body(report, level)
    return section(title, note, body, anchor=level) if body else ""


def _body(report: LadderReport, level: str) -> str:
    """Every backend's finding in words, the curves, what is guilty, the figures."""
    outcomes = [o for o in report.outcomes if o.level == level]
    if not outcomes:
        return ""
    return findings(report, outcomes) + charts(report, level) + _guilty(report, outcomes) + facts(report, outcomes)


def _series(report: LadderReport, level: str) -> dict[str, list[tuple[int, Series]]]:
    """By chart: colour and line."""
    found: dict[str, list[tuple[int, Series]]] = {}
    for outcome in (o for o in report.outcomes if o.level == level):
        for series in outcome.series:
            found.setdefault(series.kind, []).append((_owner(report, outcome, series), series))
    return found


def _owner(report: LadderReport, outcome: Outcome, series: Series) -> int:
    """The colour of the backend that a line is named after; else of the one whose outcome it is."""
    names = [name for name in dict.fromkeys([report.reference, *report.backends]) if series.name.startswith(name)]
    return index_of(report, max(names, key=len) if names else outcome.backend)


def charts(report: LadderReport, level: str) -> str:
    """One chart a kind of series, all backends in it."""
    series = _series(report, level)
    if not series:
        return ""
    cards = "".join(_chart(level, kind, lines) for kind, lines in series.items())
    drawn = {index for lines in series.values() for index, _ in lines}
    names = dict.fromkeys([report.reference, *report.backends, *(o.backend for o in report.outcomes)])
    shaded = '<span><span class="swatch band"></span>shaded: what the reference spans</span>' if level == "free" else ""
    shown = legend(report, [name for name in names if index_of(report, name) in drawn], shaded)
    return f'{shown}<div class="charts">{cards}</div>'


def _chart(level: str, kind: str, lines: list[tuple[int, Series]]) -> str:
    """Envelopes are each line's own, in its colour; of free running they are all the reference's, and grey."""
    several = len(lines) > len({index for index, _ in lines})
    bands = [list(zip(s.xs, s.low, s.high, strict=True)) if s.low else [] for _, s in lines]
    common = next(filter(None, bands), []) if level == "free" else []
    curves = [
        Curve(s.name, s.xs, s.ys, index, () if common else band, several)
        for (index, s), band in zip(lines, bands, strict=True)
    ]
    behind = Background(common, marks={words: x for _, s in lines for words, x in s.marks.items()})
    log, dots = "loss" in kind.lower(), not several and max(len(s.xs) for _, s in lines) <= 60
    label = "step" if "step" in kind or level == "free" else "epoch"
    chart = line_chart(curves, x_label=label, log=log, markers=dots, background=behind)
    return f'<div class="card"><h3>{escape(kind)}{" (log scale)" if log else ""}</h3>{chart}</div>'


def _guilty(report: LadderReport, outcomes: list[Outcome]) -> str:
    rows = [
        [f"{swatch(index_of(report, o.backend))}{escape(o.backend)}", escape(row.name), status(row), escape(row.words)]
        for o in outcomes for row in o.rows if row.guilty or row.status in ("unjudged", "doubtful")
    ]  # fmt: skip
    return words_table(["backend", "what", "verdict", "figures"], rows, long=len(rows) > 12) if rows else ""
