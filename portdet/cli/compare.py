"""`portdet compare`: dumps of two programs, tensor by tensor, with tolerances that the reference's own runs set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from portdet.align.compare import Result

ROWS = 12
_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("reference", type=_PATH)
@click.argument("candidates", type=_PATH, nargs=-1, required=True)
@click.option(
    "--self", "selves", type=_PATH, multiple=True, help="Perturbed run of the reference; a folder: all in it."
)
@click.option("--float64", type=_PATH, help="The reference's run in float64: shows the error of both sides.")
@click.option("--factor", type=float, default=10.0, show_default=True, help="Times the self-noise that is different.")
@click.option("--widths/--no-widths", default=True, help="Whether float32 against float64 is a difference.")
@click.option("--json", "report", type=_PATH, help="Write every tensor's figures to this file.")
def command(
    reference: Path,
    candidates: tuple[Path, ...],
    selves: tuple[Path, ...],
    float64: Path | None,
    factor: float,
    widths: bool,
    report: Path | None,
) -> None:
    """Hold the named tensors of another program (CANDIDATES) against those of REFERENCE; all are safetensors files.

    Several CANDIDATES are runs of one program under one-ulp changes of weights and inputs: their median counts, so give
    one or three. Without --self only the exact gates judge: names, shapes, dtypes, NaN.

    Exit code: 0 the same, 1 different, 2 undecided, 3 it could not run.

    \b
    portdet compare ours.safetensors theirs.safetensors
    portdet compare ours.safetensors theirs1.safetensors theirs2.safetensors theirs3.safetensors --self ours_perturbed/
    """
    from portdet.align.compare import Dump, Envelope, compare
    from portdet.console import console
    from portdet.errors import PortdetError

    try:
        first = Dump(reference)
        envelope = Envelope() if selves else None
        for path in _files(selves):
            assert envelope is not None
            envelope.add(first, Dump(path))
        truth = Dump(float64) if float64 else None
        others = [Dump(path) for path in candidates]
        result = compare(first, others, envelope, float64=truth, factor=factor, widths=widths)
        if report:
            result.save(report)
    except PortdetError as error:
        click.echo(f"error: {error}", err=True)
        click.get_current_context().exit(3)
    console().print(_levels(result), _tensors(result))
    click.echo(result.words())
    click.get_current_context().exit({True: 0, False: 1, None: 2}[result.passed])


def _files(paths: tuple[Path, ...]) -> list[Path]:
    from portdet.errors import PortdetError

    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        if not inside:
            raise PortdetError(f"no dumps in {path}", fix="they are .safetensors files")
        found += inside
    return found


def _levels(result: Result) -> Table:
    from rich.table import Table

    table = Table(title=f"by level; {result.self_runs} self-runs", title_justify="left")
    for head in ("level", "tensors", "different", "largest cross/self ratio"):
        table.add_column(head, justify="left" if head == "level" else "right")
    for level, (total, guilty, ratio) in result.levels().items():
        table.add_row(level, str(total), str(guilty), f"{ratio:.3g}" if result.self_runs else "unknown")
    return table


def _tensors(result: Result) -> Table:
    """The guilty tensors in order of appearance, or those with the largest ratios."""
    from rich.table import Table
    from rich.text import Text

    guilty = result.guilty()
    rows = guilty or sorted(result.findings, key=lambda f: (f.ratio, f.max_rel), reverse=True)
    title = f"the first {min(ROWS, len(rows))} of {len(rows)} that differ" if guilty else "the furthest apart"
    table = Table(title=title, title_justify="left")
    truth = any(f.error is not None for f in rows)
    heads = ["tensor", "cross/self", "largest", "norm", "cosine", "mean ulp"]
    heads += ["error", "error of reference"] if truth else []
    for head in heads:
        table.add_column(head, justify="left" if head == "tensor" else "right")
    for f in rows[:ROWS]:
        if f.status == "broken":
            table.add_row(Text(f"{f.name}: {f.words}"))
            continue
        cells = [f"{f.ratio:.3g}" if result.self_runs else "", f"{f.max_rel:.1e}", f"{f.rel_l2:.1e}"]
        cells += [f"{f.cosine:.6f}", f"{f.signed_ulp:+.2g}"]
        if truth:
            cells += ["" if e is None else f"{e:.1e}" for e in (f.error, f.reference_error)]
        table.add_row(Text(f.name), *cells)
    return table
