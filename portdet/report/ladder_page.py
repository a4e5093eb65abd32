"""The page of `portdet align --level`: one HTML file for a person who was not there.

The verdict and the first guilty place come first, in words; then the ladder, and below it every level's figures, why
they may be believed, and how to read them.
"""

from __future__ import annotations

import re
from pathlib import Path

from portdet.files import write_text
from portdet.report import ladder_runs, ladder_steps, ladder_table, ladder_tensors, ladder_trust
from portdet.report.html import document
from portdet.report.ladder_data import LadderReport
from portdet.report.ladder_head import head, ladder

_ANCHOR = re.compile(r'<section id="([a-z-]+)"><h2>([^<]+)</h2>')


def save(path: Path, report: LadderReport) -> None:
    """Write the page; the training's pictures are looked for relative to its folder."""
    write_text(path, page(report, Path(path).parent))


def page(report: LadderReport, folder: Path) -> str:
    """The whole page. Raises PortdetError for a picture of the training that is missing."""
    sections = [
        ladder(report),
        ladder_runs.operations(report),
        ladder_tensors.ratios(report),
        ladder_steps.later_steps(report),
        ladder_runs.free_running(report),
        ladder_runs.training(report, folder),
        ladder_runs.ranks(report),
        ladder_trust.power(report),
        ladder_trust.false_alarms(report),
        ladder_table.tensor_table(report),
        ladder_trust.environment(report),
        ladder_trust.reading(),
    ]
    return document(f"portdet align: {report.title}", [head(report), _contents(sections), *sections])


def _contents(sections: list[str]) -> str:
    """Links to the sections that are there."""
    found = [match for text in sections if (match := _ANCHOR.match(text))]
    return f'<nav aria-label="contents">{"".join(f"<a href=#{m[1]}>{m[2]}</a>" for m in found)}</nav>'
