"""The tables of an alignment for the terminal (rich) and for Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from portdet.report.align_reference import Span, beside
from portdet.report.align_run import AlignRun, Rows, against_table, epoch_table, metric_table

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

    from portdet.console import cell

    table = Table(
        title=cell(f"{run.config_name}: AP50 (AP) per epoch"), caption=cell(run.verdict), title_justify="left"
    )
    table.caption_justify = "left"
    table.add_column("epoch", justify="right")
    for backend in run.backends:
        table.add_column(cell(backend.name), justify="right")
    table.add_column("largest difference of AP50", justify="right")
    for epoch, cells, apart in _both(run):
        table.add_row(str(epoch), *cells, apart)
    return table


def against_tables(run: AlignRun) -> list[Table]:
    """Runs beside published curves: per judged metric a row per epoch; what is allowed, and how far outside."""
    from rich.table import Table

    from portdet.console import cell

    tables = []
    for metric in shown_metrics(run):
        head, rows = against_cells(run, metric)
        title = run.reference.title if run.reference else ""
        table = Table(title=cell(f"{metric} against {title}"), title_justify="left")
        for word in head:
            table.add_column(cell(word), justify="right")
        for row in rows:
            table.add_row(*row)
        tables.append(table)
    return tables


def shown_metrics(run: AlignRun) -> list[str]:
    """What the runs are judged by; AP where nothing has a known spread."""
    reference = run.reference
    return [] if reference is None else list(reference.spread) or reference.metrics()[:1]


def against_cells(run: AlignRun, metric: str) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of one such table, in words."""
    theirs = run.reference.curves if run.reference else {}
    head = ["epoch", *(backend.name for backend in run.backends), "outside by", "allowed", *theirs]
    rows = [
        [str(epoch), *map(_there, ours), outside(ours, allowed), band(allowed), *map(_there, curves)]
        for epoch, ours, curves, allowed in against_table(run, metric)
    ]
    return head, rows


def outside(values: Sequence[float | None], allowed: Span | None) -> str:
    """The furthest that any value lies outside, signed; 0 where all lie inside."""
    there = [value for value in values if value is not None]
    if allowed is None or not there:
        return ""
    far = max((beside(value, allowed) for value in there), key=abs)
    return f"{far:+.3f}" if far else "0"


def _there(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def band(allowed: Span | None) -> str:
    return "" if allowed is None else f"{allowed[0]:.3f} to {allowed[1]:.3f}"


def markdown(run: AlignRun) -> str:
    """The verdict, AP50 (AP) per epoch, and the final numbers, as Markdown."""
    names = [backend.name for backend in run.backends]
    per_epoch = [[str(epoch), *cells, apart] for epoch, cells, apart in _both(run)]
    final = _cells(metric_table(run), number, difference)
    against = []
    for metric in shown_metrics(run):
        head, rows = against_cells(run, metric)
        title = run.reference.title if run.reference else ""
        against += [f"{metric} against {_escape(title)}:", _markdown_table(head, rows)]
    return "\n\n".join(
        [
            f"**{_escape(run.verdict)}**",
            f"Rule: {_escape(run.rule_text)}",
            *against,
            "AP50 (AP) per epoch:",
            _markdown_table(["epoch", *names, "largest difference of AP50"], per_epoch),
            "At the last validated epoch:",
            _markdown_table(["COCO", *names, "largest difference"], final),
        ]
    )


def _both(run: AlignRun) -> list[tuple[int | str, list[str], str]]:
    ap, ap50 = ({row[0]: row[1:] for row in epoch_table(run, metric)} for metric in ("AP", "AP50"))
    none: tuple[list[float | None], None] = ([None] * len(run.backends), None)
    rows = []
    for epoch in sorted(ap | ap50, key=int):
        (strict_values, _), (values, apart) = ap.get(epoch, none), ap50.get(epoch, none)
        cells = [f"{number(a)} ({number(b)})" for a, b in zip(values, strict_values, strict=True)]
        rows.append((epoch, cells, difference(apart)))
    return rows


def _cells(rows: Rows, show: Callable[[float | None], str], apart: Callable[[float | None], str]) -> list[list[str]]:
    return [[str(key), *(show(value) for value in values), apart(far)] for key, values, far in rows]


def _markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    ruler = ["---:" for _ in head]
    return "\n".join(f"| {' | '.join(_escape(cell) for cell in line)} |" for line in [head, ruler, *rows])


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
