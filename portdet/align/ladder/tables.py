"""A ladder in the terminal (rich) and in Markdown: levels by backends, the verdict on top."""

from __future__ import annotations

from typing import TYPE_CHECKING

from portdet.align.ladder.outcome import Outcome
from portdet.report.align_tables import markdown as training_tables
from portdet.report.ladder_data import LadderReport

if TYPE_CHECKING:
    from rich.table import Table

STATES = {True: "equivalent", False: "DIFFERENT", None: "inconclusive"}
COLOURS = {"equivalent": "green", "DIFFERENT": "bold red", "inconclusive": "yellow", "could not run": "bold magenta"}
_POWER = {True: "caught", False: "MISSED SOME", None: "inconclusive"}


def state(outcome: Outcome) -> str:
    """A word or two for its verdict."""
    if outcome.crashed:
        return "could not run"
    return (_POWER if outcome.level == "power" else STATES)[outcome.passed]


def line(outcome: Outcome) -> str:
    """As a level ends: 'grad, paddle: equivalent, 214 checked, cross/self at most 1.3: words (12.3 s)'."""
    head = f"{outcome.level}, {outcome.backend}: {_figures(outcome)}"
    words = outcome.crashed.splitlines()[-1].strip() if outcome.crashed else outcome.words
    return f"{head}: {words} ({outcome.seconds:.1f} s)"


def console_table(report: LadderReport) -> Table:
    """A row a level, a column a backend: verdict, how many were checked, largest cross/self ratio, first guilty."""
    from rich.table import Table

    from portdet.console import cell

    table = Table(title=cell(f"{report.title}: reference {report.reference}"), title_justify="left")
    table.add_column("level")
    for backend in _columns(report):
        table.add_column(cell(backend))
    for level in report.levels:
        cells = []
        for backend in _columns(report):
            outcome = report.of(level, backend)
            found = cell("" if outcome is None else _cell(outcome))
            if outcome is not None:
                found.stylize(COLOURS.get(state(outcome), ""), 0, len(state(outcome)))
            cells.append(found)
        table.add_row(level, *cells)
    return table


def markdown(report: LadderReport) -> str:
    """The verdict, the table, what crashed, and the trainings' own tables."""
    columns = _columns(report)
    lines = [f"**{report.verdict}**", "", f"| level | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for level in report.levels:
        found = [report.of(level, backend) for backend in columns]
        lines.append(f"| {level} | {' | '.join(_cell(o).replace('|', '/') if o else '' for o in found)} |")
    for outcome in report.outcomes:
        lines += ["", f"- {outcome.level}, {outcome.backend}: {outcome.words}"] if outcome.words else []
        lines += ["", "```", outcome.crashed, "```"] if outcome.crashed else []
    return "\n".join([*lines, "", training_tables(report.training)] if report.training else lines)


def _columns(report: LadderReport) -> list[str]:
    """Backends that have an outcome, or were asked for one."""
    found = {outcome.backend for outcome in report.outcomes}
    asked = [name for name in report.backends if name in found or name != report.reference]
    return asked or [report.reference]


def _cell(outcome: Outcome) -> str:
    first = f", first {outcome.first}" if outcome.first else ""
    return f"{_figures(outcome)}{first}"


def _figures(outcome: Outcome) -> str:
    parts = [state(outcome)]
    parts += [f"{outcome.checked} checked"] if outcome.checked else []
    parts += [f"{outcome.guilty} guilty"] if outcome.guilty else []
    parts += [f"cross/self at most {outcome.ratio:.2g}"] if outcome.ratio else []
    return ", ".join(parts)
