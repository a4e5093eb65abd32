"""The top of a ladder's page: the verdict, where to look first, and the ladder itself, level by level."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from portdet.report.html import section, swatch
from portdet.report.ladder_data import LadderReport
from portdet.report.ladder_parts import columns, index_of
from portdet.report.ladder_words import LEVEL_WORDS, breakable, lowest, place, ratio, sentence, verdict
from portdet.report.outcome import LEVELS, Outcome

SECTIONS = {  # where a level's figures are on the page
    "ops": "ops", "weights": "ratios", "forward": "ratios", "loss": "ratios", "grad": "ratios", "step": "ratios",
    "steps": "steps", "free": "free", "train": "train", "ranks": "ranks", "power": "power",
}  # fmt: skip
_WORDS = {True: ("good", "✓ Equivalent"), False: ("bad", "✗ Different"), None: ("open", "? Inconclusive")}


def head(report: LadderReport) -> str:
    """Title, verdict in colour with a sign, the first guilty place of each backend, what crashed."""
    tone, word = _WORDS[report.passed]
    verdict = report.verdict.removeprefix(f"{word[2:]}.").strip() or report.verdict
    others = " · ".join(escape(name) for name in report.backends if name != report.reference)
    against = f"{others} against {escape(report.reference)}" if others else f"{escape(report.reference)} against itself"
    command = f'<p class="rule">To get it again: <code>{escape(report.command)}</code></p>' if report.command else ""
    return (
        f'<h1>{escape(report.title)}</h1><p class="quiet">portdet align: {against}</p>'
        f'<div class="verdict {tone}"><b>{word}</b><p>{escape(verdict)}</p>{command}</div>'
        f"{_first(report)}{_crashes(report.outcomes)}"
    )


def _first(report: LadderReport) -> str:
    """Where each guilty backend goes wrong first."""
    items = []
    for outcome, row in lowest(report.outcomes):
        backend, words = escape(outcome.backend), (row.words if row else "") or outcome.words
        where = place(row.name) if row else ""
        at = f" at training step {row.step}" if row and row.step > 0 else ""
        raw = f' <code class="quiet">{breakable(row.name)}</code>' if row and row.name != where else ""
        first = (
            f"The first place where {backend} differs from {escape(report.reference)} is "
            f"<strong>{breakable(where)}</strong>{at}, on level <i>{escape(outcome.level)}</i>.{raw}"
        )
        found = first if row else f"Different on level <i>{escape(outcome.level)}</i>."
        after = f'<p class="quiet">{escape(sentence(words))}</p>' if words else ""
        items.append(
            f'<div class="card guilty"><h3>{swatch(index_of(report, outcome.backend))}{backend}</h3>'
            f"<p>{found}</p>{after}</div>"
        )
    return f'<div class="first">{"".join(items)}</div>' if items else ""


def _crashes(outcomes: Iterable[Outcome]) -> str:
    boxes = [
        f"<details><summary>{escape(o.backend)}, level {o.level}: could not run to the end. What it said last</summary>"
        f"<pre>{escape(o.crashed)}</pre></details>"
        for o in outcomes
        if o.crashed
    ]
    return f'<div class="card crashed">{"".join(boxes)}</div>' if boxes else ""


def ladder(report: LadderReport) -> str:
    """Levels from low to high, a column a backend. Power is no rung: it says how much the others can see."""
    names = columns(report)
    top = "".join(
        f"<th>{swatch(index_of(report, name))}{escape(name)}"
        f"{' <span class=note>reference</span>' if name == report.reference else ''}</th>"
        for name in names
    )
    levels = [*LEVELS, *(level for level in report.levels if level not in LEVELS)]
    rows = "".join(
        f"<tr{' class=apart' if level == 'power' else ''}><th><b>{escape(level)}</b> "
        f'<span class="note">{LEVEL_WORDS.get(level, "")}</span></th>'
        + "".join(_rung(report, level, name) for name in names)
        + "</tr>"
        for level in levels
    )
    table = f'<table class="ladder"><thead><tr><th>level</th>{top}</tr></thead><tbody>{rows}</tbody></table>'
    note = "From single operations to whole trainings. The lowest level that differs is where to look first."
    return section("The ladder", note, f'<div class="card scroll" tabindex="0">{table}</div>', anchor="ladder")


def _rung(report: LadderReport, level: str, backend: str) -> str:
    outcome = report.of(level, backend)
    if outcome is None:
        there = any(o.level == level for o in report.outcomes)
        none = "" if there else "not reached" if level in report.levels else "not asked for"
        return f'<td class="none">{none or "—"}</td>'
    figures = [f"<span>{text}</span>" for text in _figures(outcome)]
    anchor = SECTIONS.get(level, "tensors")
    tone = " bad" if outcome.passed is False else ""
    mark = f'<a href="#{anchor}">{verdict(outcome, report.reference)}</a>'
    return (
        f'<td class="rung{tone}" title="{escape(outcome.words)}">{mark}'
        f'<span class="note">{" ".join(figures)}</span></td>'
    )


def _figures(outcome: Outcome) -> list[str]:
    figures = [f"{outcome.checked:,} checked"] if outcome.checked else []
    figures += [f"{outcome.guilty:,} {'missed' if outcome.level == 'power' else 'guilty'}"] if outcome.guilty else []
    return [*figures, *([f"ratio {ratio(outcome.ratio)}"] if outcome.ratio else [])]
