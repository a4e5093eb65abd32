"""The tables of an alignment for the terminal (rich) and for Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from portdet.report.align_run import AlignRun, Rows, epoch_table, metric_table

if TYPE_CHECKING:
    from rich.table import Table


def number(value: float | None) -> str:
    """AP and the like: three digits, n/a where it is undefined."""
    return "n/a" if value is None else f"{value:.3f}"


def loss_number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.6g}"


def relative(value: float | None) -> str:
    """A relative difference: 2.1e-07, or per cent from a tenth of one on."""
    if value is None:
        return ""
    return "0" if value == 0 else f"{value:.1%}" if value >= 1e-3 else f"{value:.1e}"


def difference(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def console_table(run: AlignRun) -> Table:
    """AP50 and AP per epoch, one column per backend; the verdict below."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{run.config_name}: AP50 (AP) per epoch", caption=run.verdict, title_justify="left")
    table.caption_justify = "left"
    table.add_column("epoch", justify="right")
    for backend in run.backends:
        table.add_column(Text(backend.name), justify="right")
    table.add_column("largest difference of AP50", justify="right")
    for epoch, cells, apart in _both(run):
        table.add_row(str(epoch), *cells, apart)
    return table


def markdown(run: AlignRun) -> str:
    """The verdict, AP50 (AP) per epoch, and the final numbers, as Markdown."""
    names = [backend.name for backend in run.backends]
    per_epoch = [[str(epoch), *cells, apart] for epoch, cells, apart in _both(run)]
    final = _cells(metric_table(run), number, difference)
    return "\n\n".join(
        [
            f"**{_escape(run.verdict)}**",
            f"Rule: {_escape(run.rule_text)}",
            "AP50 (AP) per epoch:",
            _markdown_table(["epoch", *names, "largest difference of AP50"], per_epoch),
            "At the end:",
            _markdown_table(["COCO", *names, "largest difference"], final),
        ]
    )


def _both(run: AlignRun) -> list[tuple[int | str, list[str], str]]:
    ap = {epoch: values for epoch, values, _ in epoch_table(run, "AP")}
    rows = []
    for epoch, values, apart in epoch_table(run, "AP50"):
        pairs = zip(values, ap.get(epoch, [None] * len(values)), strict=True)
        rows.append((epoch, [f"{number(a)} ({number(b)})" for a, b in pairs], difference(apart)))
    return rows


def _cells(rows: Rows, show: Callable[[float | None], str], apart: Callable[[float | None], str]) -> list[list[str]]:
    return [[str(key), *(show(value) for value in values), apart(far)] for key, values, far in rows]


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    ruler = ["---:" for _ in head]
    return "\n".join(f"| {' | '.join(_escape(cell) for cell in line)} |" for line in [head, ruler, *rows])


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
