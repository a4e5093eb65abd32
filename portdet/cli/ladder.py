"""`portdet align --level ...`: what is asked for becomes a plan, the plan is climbed, the finding printed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from portdet.console import say

if TYPE_CHECKING:
    from portdet.align.ladder.plan import Plan
    from portdet.config import Config
    from portdet.report.ladder_data import LadderReport

ALL = "all"


@dataclass(frozen=True)
class Asked:
    """The command line's words for a new ladder; empty where they were not given."""

    target: str
    backends: Sequence[str]
    levels: Sequence[str]
    overrides: Sequence[str]
    reference: str = ""
    seeds: int = 1
    margin: float = 0.1
    initial: Path | None = None
    against: str | None = None
    spread: float | None = None
    parallel: bool = False
    self_runs: int = 16
    points: str = ""

    def command(self) -> str:
        """What to type to get this again."""
        words = ["portdet", "align", self.target, "--backends", ",".join(self.backends)]
        words += ["--level", ",".join(self.levels) or "train"]
        words += ["--reference", self.reference] if self.reference else []
        words += ["--seeds", str(self.seeds)] if self.seeds > 1 else []
        words += ["--margin", f"{self.margin:g}"] if self.margin != 0.1 else []
        words += ["--initial", str(self.initial)] if self.initial else []
        words += ["--against", self.against] if self.against else []
        words += ["--spread", f"{self.spread:g}"] if self.spread is not None else []
        words += ["--parallel"] if self.parallel else []
        words += ["--self-runs", str(self.self_runs)] if self.self_runs != Asked.self_runs else []
        words += ["--points", self.points] if self.points else []
        return shlex.join([*words, *self.overrides])


def new(asked: Asked) -> int:
    """Make a plan and its folder, and climb. Raises PortdetError for what cannot be asked for, before any folder."""
    from portdet.cli.align import keep
    from portdet.config import load
    from portdet.models.registry import check
    from portdet.processes.alone import alone_in
    from portdet.train.earlier import clear
    from portdet.train.folder import run_folder

    values = load(asked.target, tuple(asked.overrides))
    check(values)
    plan = _plan(asked, values)
    settings = values.train
    folder = run_folder(settings.project, "align", settings.name, exist_ok=settings.exist_ok).resolve()
    keep(folder, asked.against)
    with alone_in(folder, deep=True):
        clear(folder, say)
        return climb(replace(plan, folder=str(folder), weights=_weights(values, asked.initial, folder)))


def resumed(folder: Path, levels: Sequence[str]) -> int:
    """Go on with a folder's plan; `levels` are added to its own."""
    from portdet.align.ladder.outcome import LEVELS
    from portdet.align.ladder.plan import Plan
    from portdet.processes.alone import alone_in

    plan = Plan.load(folder)
    added = {*plan.levels, *levels_of(levels)}
    with alone_in(plan.place, deep=True):
        return climb(replace(plan, levels=tuple(level for level in LEVELS if level in added)))


def climb(plan: Plan) -> int:
    """Run what is missing, print the finding, return the exit code."""
    from portdet.align.ladder.job import LadderJob
    from portdet.align.ladder.verdict import exit_code

    report = LadderJob(plan, say).run()
    _show(report, plan.place)
    return exit_code(report)


def levels_of(words: Sequence[str]) -> tuple[str, ...]:
    """'ops,grad' and 'all', repeated or not, as levels in their order."""
    from portdet.align.ladder.outcome import LEVELS
    from portdet.errors import PortdetError, nearest

    asked = {name.strip() for word in words for name in word.split(",") if name.strip()}
    for name in sorted(asked):
        if name not in (*LEVELS, ALL):
            raise PortdetError(f"unknown level '{name}'", fix=nearest(name, (*LEVELS, ALL)))
    return tuple(level for level in LEVELS if level in asked or ALL in asked)


def points_of(words: str) -> tuple[int, ...]:
    """'0,5,20' as training steps, upwards; the first step is always among them."""
    from portdet.align.ladder.plan import POINTS
    from portdet.errors import PortdetError
    from portdet.outside import shown

    if not words:
        return POINTS
    try:
        steps = {int(word) for word in words.split(",")}
    except ValueError:
        steps = {-1}
    if min(steps) < 0 or max(steps) > 10**9:
        raise PortdetError(f"--points {shown(words)} are no training steps", fix="whole numbers from 0 on, as 0,5,20")
    return tuple(sorted({0, *steps}))


def _plan(asked: Asked, values: Config) -> Plan:
    """The plan, its folder still open."""
    from portdet.align.against import meets, validated_epochs
    from portdet.align.ladder.beside import LEVELS as BESIDE
    from portdet.align.ladder.plan import Plan
    from portdet.align.published import read_reference
    from portdet.backends import load_backend
    from portdet.data import open_dataset
    from portdet.errors import PortdetError
    from portdet.processes.cores import cores
    from portdet.train.job import model_of

    levels = levels_of(asked.levels) or ("train",)
    reference = asked.reference or asked.backends[0]
    for name in dict.fromkeys((*asked.backends, reference)):
        load_backend(name)
    alone = [level for level in levels if level not in ("ops", "ranks", "power")]
    if alone and not set(asked.backends) - {reference}:
        raise PortdetError(f"level {alone[0]} compares backends, and only {reference} is named", fix="see --backends")
    if asked.against and "train" not in levels:
        raise PortdetError("--against compares trainings, which --level leaves out", fix="add --level train")
    model_of(values.model_copy(deep=True), open_dataset(values.data, "train").names)
    if asked.against:
        meets(read_reference(asked.against, asked.spread), validated_epochs(values))
    if (asked.points or asked.self_runs != Asked.self_runs) and set(levels) <= set(BESIDE):
        raise PortdetError(
            f"--points and --self-runs are for levels with calibrated tolerances, not for {', '.join(levels)}",
            fix="add --level steps, or all",
        )
    if asked.parallel:
        if set(levels) <= set(BESIDE) or not set(levels) & set(BESIDE):
            asked_for, lacks = ", ".join(levels), "one of the others" if set(levels) & set(BESIDE) else "one of them"
            raise PortdetError(
                f"--parallel climbs {', '.join(BESIDE)} beside the other levels, and asked is only {asked_for}",
                fix=f"add {lacks}, as --level all does",
            )
        values.train.threads = values.train.threads or max(cores() // 2, 1)
    extra = {"command": asked.command(), "against": asked.against, "spread": asked.spread}
    return Plan(
        values.model_dump(mode="json"), "", tuple(asked.backends), levels, reference, seeds=asked.seeds,
        margin=asked.margin, parallel=asked.parallel, extra=extra, self_runs=asked.self_runs,
        points=points_of(asked.points),
    )  # fmt: skip


def _weights(values: Config, initial: Path | None, folder: Path) -> str:
    """The file of initial weights: the one given, or `train.pretrained` with the seed's where it has none, or none."""
    if initial:
        return str(initial.resolve())
    if not values.train.pretrained:
        return ""
    from portdet import tensors
    from portdet.cli.align import pretrained
    from portdet.data import open_dataset
    from portdet.spec.init import initial_weights
    from portdet.train.job import model_of

    graph = model_of(values, open_dataset(values.data, "train").names).graph
    path = folder / "weights.safetensors"
    tensors.write(path, {**initial_weights(graph, values.train.seed), **pretrained(values)})
    return str(path)


def _show(report: LadderReport, folder: Path) -> None:
    """The verdict, the table, what crashed, and where the page is."""
    from portdet.align.ladder.tables import console_table
    from portdet.console import console

    say("")
    say(report.verdict)
    console().print(console_table(report))
    for outcome in report.outcomes:
        if outcome.crashed:
            say(f"{outcome.backend} could not run to the end at level {outcome.level}:", err=True)
            say(f"    {outcome.crashed}".replace("\n", "\n    "), err=True)
    say(f"report: {folder / 'align.html'}")
