"""`portdet compare`: dumps of two programs, tensor by tensor, with tolerances that the reference's own runs set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from portdet.cli.options import Number
from portdet.console import say

if TYPE_CHECKING:
    from rich.table import Table

    from portdet.align.compare import Envelope, Result
    from portdet.session import Array

    Dumps = list[Mapping[str, Array]]

ROWS = 12
_PATH = click.Path(path_type=Path)


_FACTOR = Number(0, 1e12, min_open=True)


@click.command()
@click.argument("reference", type=_PATH)
@click.argument("candidates", type=_PATH, nargs=-1, required=True)
@click.option(
    "--self", "selves", type=_PATH, multiple=True, help="Perturbed run of the reference; a folder: all in it."
)
@click.option("--float64", type=_PATH, help="The reference's run in float64: shows the error of both sides.")
@click.option("--factor", type=_FACTOR, default=10.0, show_default=True, help="Times the self-noise that is different.")
@click.option("--widths/--no-widths", default=True, help="Whether float32 against float64 is a difference.")
@click.option("--rename", type=_PATH, help="YAML: the candidates' names, each with the reference's (theirs: ours).")
@click.option("--guess-names", type=_PATH, help="Write such a file, guessed by order and shapes; compare nothing.")
@click.option("--shared", is_flag=True, help="Leave out, and count, the tensors that not all have.")
@click.option("--json", "report", type=_PATH, help="Write every tensor's figures to this file.")
def command(
    reference: Path,
    candidates: tuple[Path, ...],
    selves: tuple[Path, ...],
    float64: Path | None,
    factor: float,
    widths: bool,
    rename: Path | None,
    guess_names: Path | None,
    shared: bool,
    report: Path | None,
) -> None:
    """Hold the named tensors of another program (CANDIDATES) against those of REFERENCE; all are safetensors files.

    Several CANDIDATES are runs of one program under one-ulp changes of weights and inputs: their median counts, so give
    one or three. Without --self only the exact gates judge: names, shapes, dtypes, NaN.

    Exit code: 0 the same, 1 different, 2 undecided, 3 it could not run.

    \b
    portdet compare ours.safetensors theirs.safetensors
    portdet compare ours.safetensors theirs1.safetensors theirs2.safetensors theirs3.safetensors --self ours_perturbed/
    portdet compare ours.safetensors theirs.safetensors --guess-names names.yaml  # read it, then --rename names.yaml
    """
    from portdet.align.compare import Dump, compare
    from portdet.console import console
    from portdet.errors import PortdetError

    try:
        _keep(reference, candidates, selves, float64, rename, {"--json": report, "--guess-names": guess_names})
        first, others = _dumps(reference, candidates, rename)
        if guess_names:
            say(_guess(first, others[0], guess_names))
            return
        runs: Dumps = [Dump(path) for path in _files(selves)]
        if shared:
            first, others, runs = _shared(first, others, runs)
        truth = Dump(float64) if float64 else None
        result = compare(first, others, _envelope(first, runs), float64=truth, factor=factor, widths=widths)
        if report:
            result.save(report)
    except PortdetError as error:
        say(f"error: {error}", err=True)
        click.get_current_context().exit(3)
    console().print(_levels(result), _tensors(result))
    say(result.words())
    click.get_current_context().exit({True: 0, False: 1, None: 2}[result.passed])


def _keep(
    reference: Path,
    candidates: Sequence[Path],
    selves: tuple[Path, ...],
    float64: Path | None,
    rename: Path | None,
    outputs: Mapping[str, Path | None],
) -> None:
    """No output is a file that is read."""
    from portdet.files import distinct

    many = {f"{what} {number}": path for what, paths in (("candidate", candidates), ("--self", _files(selves)))
            for number, path in enumerate(paths, start=1)}  # fmt: skip
    distinct(outputs, {"the reference": reference, "--float64": float64, "--rename": rename, **many})


def _dumps(reference: Path, candidates: Sequence[Path], rename: Path | None) -> tuple[Mapping[str, Array], Dumps]:
    """The reference, and the candidates under its names."""
    from portdet.align.compare import Dump
    from portdet.align.compare.names import Renamed

    names = _names(rename) if rename else {}
    return Dump(reference), [Renamed(dump, names) if names else dump for dump in map(Dump, candidates)]


def _shared(first: Mapping[str, Array], others: Dumps, runs: Dumps) -> tuple[Mapping[str, Array], Dumps, Dumps]:
    """The tensors that the reference and all candidates have; says how many others there are."""
    from portdet.align.compare.names import Some, shared

    asked = set(first).union(*others)
    first, *found = shared(first, *others)
    left = len(asked) - len(first)
    say(f"compared: {len(first)} tensors; left out, since not all have them: {left}")
    return first, [*found], [Some(run, set(first).__contains__) for run in runs]


def _envelope(first: Mapping[str, Array], runs: Dumps) -> Envelope | None:
    from portdet.align.compare import Envelope

    envelope = Envelope()
    for run in runs:
        envelope.add(first, run)
    return envelope if runs else None


def _names(path: Path) -> dict[str, str]:
    """What `--rename` says: the candidates' names, each with the reference's."""
    from portdet.errors import PortdetError
    from portdet.plain_yaml import read_yaml

    found = read_yaml(path, fix="write one with --guess-names", most=1 << 22)
    if not isinstance(found, dict) or not all(isinstance(word, str) for pair in found.items() for word in pair):
        raise PortdetError("no table of names", where=str(path), fix="a line a tensor: 'their name: our name'")
    return found


def _guess(first: Mapping[str, Array], other: Mapping[str, Array], path: Path) -> str:
    """Write names by position, and say how many tensors have none."""
    import yaml

    from portdet.align.compare.names import by_position
    from portdet.files import write_text

    found = by_position(first, other)
    write_text(path, yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=1000))
    left = [len(set(first) - set(found.values())), len(set(other) - set(found))]
    return (
        f"{len(found)} names guessed from order and shapes, {left[0]} of the reference's tensors and {left[1]} of the "
        f"candidate's without a counterpart; read {path}, then compare with --rename {path} --shared"
    )


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

    from portdet.console import cell

    table = Table(title=f"by level; {result.self_runs} self-runs", title_justify="left")
    for head in ("level", "tensors", "different", "largest cross/self ratio"):
        table.add_column(head, justify="left" if head == "level" else "right")
    for level, (total, guilty, ratio) in result.levels().items():
        table.add_row(cell(level), str(total), str(guilty), f"{ratio:.3g}" if result.self_runs else "unknown")
    return table


def _tensors(result: Result) -> Table:
    """The guilty tensors in order of appearance, or those with the largest ratios."""
    from rich.table import Table

    from portdet.console import cell

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
            table.add_row(cell(f"{f.name}: {f.words}"))
            continue
        cells = [f"{f.ratio:.3g}" if result.self_runs else "", f"{f.max_rel:.1e}", f"{f.rel_l2:.1e}"]
        cells += [f"{f.cosine:.6f}", f"{f.signed_ulp:+.2g}"]
        if truth:
            cells += ["" if e is None else f"{e:.1e}" for e in (f.error, f.reference_error)]
        table.add_row(cell(f.name), *cells)
    return table
