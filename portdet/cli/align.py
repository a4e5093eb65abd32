"""`portdet align`: the same detector on several backends, level by level or as trainings side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from portdet.cli.ladder import Asked, new, resumed
from portdet.cli.options import ConfigCommand, Number
from portdet.console import say

if TYPE_CHECKING:
    from portdet.config import Config
    from portdet.report.align_run import AlignRun
    from portdet.session import Arrays

KEYS = ("device", "mode", "epochs", "batch", "imgsz", "workers", "seed", "project", "name")

HELP = """Train CONFIG on each backend, in a process of its own, from the same weights on the same batches.

Prints AP per epoch side by side and writes align.html, align.json, align.md and a picture. With --against FILE the
curves are also held against those of FILE: a table of configs/published by its name, or any run. RUN_FOLDERs are
finished runs: nothing is trained.

With --level it climbs a ladder instead; the lowest level that differs names the cause. Each gate is as wide as the
reference's own rounding noise, and what is finished is kept: --resume FOLDER goes on, with further levels if given.

\b
ops      each op that the model uses, against numpy
weights, forward, loss, grad, step
         what one step shows: weights as loaded, outputs of all layers, losses, gradients, the state it leaves
steps    the same at training steps 0, 1, 2, 5, 20, 100, from the reference's whole state
free     losses of free-running trainings, up to where rounding alone pulls them apart
train    AP of whole trainings: with --seeds N an equivalence test on N pairs
ranks    two processes against one
power    planted faults: how many of them these levels catch

Exit code: 0 passed by the rule it prints (equivalent), 1 different, 2 undecided, 3 it could not run.

\b
portdet align yolov3_scenes
portdet align yolov3_scenes --level all --seeds 3
portdet align yolov3_scenes --level ops,grad,step --backends torch,paddle
portdet align --resume runs/align/yolov3_scenes --level ranks
portdet align yolov3_bccd --backends torch,paddle epochs=5
portdet align --against ppyolo_voc2012 runs/train/ppyolo_voc2012
portdet align --against runs/align/yolov3_scenes --spread 0.03 runs/train/yolov3_scenes
"""


_SEEDS, _RUNS, _SHARE = click.IntRange(1, 1000), click.IntRange(4, 10_000), Number(0, 1)


@click.command(cls=ConfigCommand, keys=KEYS, help=HELP)
@click.argument("targets", metavar="CONFIG | RUN_FOLDER...", nargs=-1)
@click.option(
    "--backends", default="torch,mindspore,paddle", show_default=True, help="Comma-separated; first: reference."
)
@click.option("--level", "levels", multiple=True, metavar="LEVEL,...", help="One of those above, or all.")
@click.option("--reference", default="", help="What the others are held against; default: the first backend.")
@click.option("--seeds", type=_SEEDS, default=1, show_default=True, help="Trainings a backend, paired.")
@click.option("--margin", type=_SHARE, default=0.1, show_default=True, help="Largest difference of the final AP50.")
@click.option("--self-runs", type=_RUNS, default=16, show_default=True, help="That set the tolerances.")
@click.option("--points", default="", metavar="STEP,...", help="Of level steps; default: 0,1,2,5,20,100.")
@click.option("--parallel", is_flag=True, help="Two levels at a time, each on half the cores: for small detectors.")
@click.option("--resume", metavar="FOLDER", type=click.Path(path_type=Path), help="Go on with a stopped ladder.")
@click.option(
    "--initial",
    type=click.Path(path_type=Path),
    help="All initial weights; else pretrained ones, then the seed's.",
)
@click.option("--against", metavar="FILE", help="Curves to compare with: a published table, results.csv, a run folder.")
@click.option("--spread", type=_SHARE, help="Run-to-run spread of AP, where --against states none.")
def command(
    targets: tuple[str, ...],
    backends: str,
    levels: tuple[str, ...],
    reference: str,
    seeds: int,
    margin: float,
    self_runs: int,
    points: str,
    parallel: bool,
    resume: Path | None,
    initial: Path | None,
    against: str | None,
    spread: float | None,
    overrides: tuple[str, ...],
) -> None:
    """See HELP."""
    from portdet.errors import PortdetError
    from portdet.train.interrupt import terminable

    context = click.get_current_context()
    names = [name.strip() for name in backends.split(",") if name.strip()]
    try:
        with terminable():
            if resume:
                code = _resumed(context, resume, levels)
            elif any(os.path.isdir(target) for target in targets):
                code = _finished(targets, against, spread, overrides)
            elif levels or reference or seeds > 1 or parallel or points or self_runs != Asked.self_runs:
                given = reference, seeds, margin, initial, against, spread, parallel, self_runs, points
                code = new(Asked(_config(targets, names), names, levels, overrides, *given))
            else:
                code = _trained(_config(targets, names), names, margin, initial, against, spread, overrides)
    except PortdetError as error:
        say(f"error: {error}", err=True)
        code = 3
    context.exit(code)


def _config(targets: Sequence[str], names: Sequence[str]) -> str:
    """The one configuration that is named, for backends that are."""
    from portdet.errors import PortdetError

    if not targets:
        raise click.UsageError("name a configuration, run folders, or --resume FOLDER", click.get_current_context())
    if len(targets) > 1:
        raise PortdetError(f"{len(targets)} configurations: {', '.join(targets)}", fix="give one, or run folders")
    if not names:
        raise PortdetError("no backend is named", fix="see --backends")
    return targets[0]


def _resumed(context: click.Context, folder: Path, levels: Sequence[str]) -> int:
    from portdet.errors import PortdetError

    given = [name for name in context.params if name not in ("resume", "levels") and _is_given(context, name)]
    if given:
        raise PortdetError(
            f"--resume goes on with the plan of {folder}, which '{given[0]}' would change",
            fix="only --level can be added",
        )
    return resumed(folder, levels)


def _is_given(context: click.Context, name: str) -> bool:
    if name == "overrides":
        return bool(context.params[name])
    return context.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)


def _trained(
    target: str,
    names: Sequence[str],
    margin: float,
    initial: Path | None,
    against: str | None,
    spread: float | None,
    overrides: Sequence[str],
) -> int:
    from portdet.align.against import meets, validated_epochs
    from portdet.align.job import AlignJob
    from portdet.align.published import read_reference
    from portdet.backends import load_backend
    from portdet.config import load
    from portdet.data import open_dataset
    from portdet.models.registry import check
    from portdet.processes.alone import alone_in
    from portdet.train.earlier import clear
    from portdet.train.folder import new_folder
    from portdet.train.job import model_of

    values = load(target, tuple(overrides))
    check(values)
    for name in names:
        load_backend(name)
    reference = read_reference(against, spread) if against else None
    if reference:
        meets(reference, validated_epochs(values))
    model_of(values.model_copy(deep=True), open_dataset(values.data, "train").names)
    start = pretrained(values) if values.train.pretrained and initial is None else None
    t = values.train
    with (
        new_folder(t.project, "align", t.name, exist_ok=t.exist_ok, begun="*/session.json") as place,
        alone_in(folder := place.resolve(), deep=True),
    ):
        keep(folder, against)
        clear(folder, say)
        job = AlignJob(values, names, folder, margin, say=say, weights=initial, pretrained=start, reference=reference)
        result = job.run()
    _show(result, folder)
    for name, lines in job.crashed.items():
        say(f"{name} could not run:\n{lines}", err=True)
    return 3 if job.crashed else exit_code(result)


def keep(folder: Path, against: str | None) -> None:
    """The curves to compare with are no file that the alignment will write, as they may be with train.exist_ok."""
    from portdet.files import distinct

    given = Path(against) if against and os.path.exists(against) else None
    read = given / "align.json" if given and given.is_dir() else given
    distinct({"the alignment": folder / "align.json"}, {"--against": read})


def pretrained(values: Config) -> Arrays:
    """What train.pretrained has of the model; the head starts anew where the class count is another."""
    from portdet.cli.runs import read_weights
    from portdet.data import open_dataset
    from portdet.train.job import model_of

    detector = model_of(values, open_dataset(values.data, "train").names)
    return read_weights(Path(values.train.pretrained), detector, transfer=True)


def _finished(targets: Sequence[str], against: str | None, spread: float | None, overrides: Sequence[str]) -> int:
    from portdet.align.finished import compare_finished
    from portdet.align.published import read_reference
    from portdet.errors import PortdetError
    from portdet.train.folder import run_folder

    if against is None:
        raise PortdetError("finished runs, but nothing to compare with", fix="add --against FILE or a run folder")
    if files := [target for target in targets if not os.path.isdir(target)]:
        raise PortdetError(f"'{files[0]}' is no run folder, the others are", fix="name run folders only")
    given = dict(word.split("=", 1) for word in overrides)
    if unknown := set(given) - {"name", "project", "train.name", "train.project"}:
        raise PortdetError(f"'{min(unknown)}' cannot be set for finished runs", fix="only name and project can")
    reference = read_reference(against, spread)
    project, name = (given.get(key, given.get(f"train.{key}", "")) for key in ("project", "name"))
    folder = run_folder(project or "runs", "align", name or Path(targets[0]).resolve().name).resolve()
    try:
        result = compare_finished([Path(target) for target in targets], reference, folder)
    except PortdetError:
        with suppress(OSError):
            folder.rmdir()  # only if nothing is in it
        raise
    _show(result, folder)
    return exit_code(result)


def _show(result: AlignRun, folder: Path) -> None:
    """Tables, checks, rule, and where the page is."""
    from portdet.console import console
    from portdet.report.align_tables import against_tables, console_table

    tables = against_tables(result) if result.intro else [console_table(result), *against_tables(result)]
    console().print(*tables)
    say(result.verdict)
    for check in result.checks:
        word = {True: "ok       ", False: "FAILED   ", None: "undecided"}[check.passed]
        say(f"{word} {check.name}: {check.detail}")
    say(f"rule: {result.rule_text}")
    say(f"report: {folder / 'align.html'}")


def exit_code(result: AlignRun) -> int:
    """0 passed, 1 different, 2 undecided."""
    return {True: 0, False: 1, None: 2}[result.passed]
