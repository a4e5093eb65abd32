"""What is looked at, and where the reference's side of it is kept.

A look is one state of the reference's training (its step: a point) with one batch: the training's own or, where
anything is different on that one, two others at the same state. On real configurations activations lie so near to 0
that rounding moves some across it, and gradients below them jump by 0.1 to 20 %, in a framework against itself too.
That is an accident of a batch; a fault shows on every one.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from portdet.align.compare import Dump, DumpWriter, Envelope, Result, compare
from portdet.align.compare.judge import DOUBTFUL
from portdet.align.compare.names import Some
from portdet.align.ladder.case import Case
from portdet.align.ladder.outcome import Row
from portdet.align.ladder.plan import Plan
from portdet.align.probe import LEVELS, Put, perturbed, probe
from portdet.backends import load_backend
from portdet.errors import PortdetError
from portdet.session import Array, Arrays, Session, StepValues
from portdet.state import BUFFERS

BATCHES = 3
CANDIDATE, HELD_OUT = 1000, 2000  # first seeds of a candidate's runs and of held-out ones; self-runs count from 0
INEXACT_SUM = 2.0**-16  # of the largest value; 128 ulp
RUNS = 3  # of a candidate, whose median counts
SMALL_RUN = 1 << 27  # bytes of a run that is kept in memory until it is compared; larger ones go to the disk


@dataclass(frozen=True, order=True)
class Look:
    """A point of the training, and a batch: 0 its own, 1 and 2 others."""

    point: int
    batch: int = 0

    def __str__(self) -> str:
        return f"{self.point}.b{self.batch}" if self.batch else str(self.point)

    def step(self, case: Case) -> int:
        """The training step whose batch this is; the others lie a third and two thirds of the training away."""
        away = self.batch * max(case.steps // BATCHES, 1)
        return (self.point + away) % max(case.steps, BATCHES)


class LooksMissing(PortdetError):
    """The reference has not made these looks yet."""

    def __init__(self, looks: Iterable[Look]) -> None:
        self.looks = sorted(looks)
        names = ", ".join(map(str, self.looks))
        super().__init__(f"the reference lacks looks: {names}", fix="make them with `numbers.complete`")


Make = Callable[[Sequence[Look]], None]


@dataclass(frozen=True)
class Shelf:
    """The reference's files: states, and by look a dump of the unperturbed run and the noise of the self-runs."""

    folder: Path

    @classmethod
    def of(cls, plan: Plan) -> Shelf:
        return cls(plan.place / "reference")

    @property
    def about(self) -> Path:
        return self.folder / "about.json"

    def state(self, point: int) -> Path:
        return self.folder / f"state{point}.safetensors"

    def dump(self, look: Look) -> Path:
        return self.folder / f"dump{look}.safetensors"

    def truth(self, look: Look) -> Path:
        """The unperturbed run in float64, of small detectors at the first point."""
        return self.folder / f"float64-{look}.safetensors"

    def noise(self, look: Look) -> Path:
        return self.folder / f"noise{look}.json"

    def has(self, look: Look, levels: Sequence[str]) -> bool:
        """Whether a look is there with these levels and its noise."""
        return self.noise(look).is_file() and self.has_dump(look, levels)

    def has_dump(self, look: Look, levels: Sequence[str]) -> bool:
        return self.dump(look).is_file() and set(levels) <= set(self.opened(look).about.get("levels", "").split())

    def opened(self, look: Look) -> Dump:
        path = self.dump(look)
        return _opened(path, path.stat().st_mtime_ns)

    def jumps(self) -> dict[str, float]:
        """The furthest that each tensor lies apart in any self-run of any look."""
        found: dict[str, float] = {}
        for path in self.folder.glob("noise*.json"):
            for name, noise in Envelope.load(path).noise.items():
                found[name] = max([found.get(name, 0.0), *noise.max_rel])
        return found

    def envelope(self, look: Look) -> Envelope:
        path = self.noise(look)
        return _envelope(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=BATCHES)
def _opened(path: Path, _modified: int) -> Dump:
    return Dump(path)


@functools.lru_cache(maxsize=BATCHES)
def _envelope(path: Path, _modified: int) -> Envelope:
    return Envelope.load(path)


def asked_points(plan: Plan, case: Case) -> list[int]:
    """Points that the plan's levels need, those beyond the training left out."""
    return [point for point in plan.points if point < case.steps and levels_at(plan, point)]


def levels_at(plan: Plan, point: int) -> tuple[str, ...]:
    """What is probed at a point: at 0 what is asked for; `steps` asks for everything everywhere."""
    if "steps" in plan.levels:
        return LEVELS
    return tuple(level for level in LEVELS if level in plan.levels and not point)


def observe(
    session: Session,
    case: Case,
    look: Look,
    state: Mapping[str, Array],
    put: Put,
    levels: Sequence[str],
    *,
    seed: int | None = None,
    values: StepValues | None = None,
) -> None:
    """What a session shows at a look; with a seed under one-ulp changes. values: other than the case's."""
    batch = case.batch(look.step(case))
    if seed is not None:
        state, batch = perturbed(state, batch, seed)
    probe(session, state, batch, values or case.values(look.point), put, levels)


def looked_at(
    plan: Plan, case: Case, session: Session, look: Look, seeds: Sequence[int], values: StepValues | None = None
) -> Result:
    """A session's perturbed runs at a look that the reference has made, their median against it."""
    shelf, levels = Shelf.of(plan), levels_at(plan, look.point)
    state = dict(Dump(shelf.state(look.point)))
    with tempfile.TemporaryDirectory(prefix="runs-", dir=plan.place) as folder:
        runs: list[Mapping[str, Array]] = []
        for seed in seeds:
            show = partial(observe, session, case, look, state, levels=levels, seed=seed, values=values)
            runs.append(_kept(show, None if shelf.dump(look).stat().st_size < SMALL_RUN else Path(folder, f"{seed}")))
        wanted = partial(_wanted, levels=levels, inside=kernels(plan, case))
        reference, *others = (Some(run, wanted) for run in (shelf.opened(look), *runs))
        truth = Dump(shelf.truth(look)) if shelf.truth(look).is_file() else None
        return lenient(compare(reference, others, shelf.envelope(look), float64=truth))


def _kept(show: Callable[..., None], path: Path | None) -> Mapping[str, Array]:
    """What is shown, in memory or, with a path, in a file."""
    if path is None:
        found: Arrays = {}
        show(put=found.__setitem__)
        return found
    with DumpWriter(path) as dump:
        show(put=dump.put)
    return Dump(path)


def _wanted(name: str, levels: Sequence[str], inside: Sequence[str]) -> bool:
    """Whether the plan asks for it (an earlier one may have asked for more), and both sides may have it."""
    level, _, path = name.partition("/")
    return level in levels and not (level == "forward" and path.startswith(tuple(inside)))


def kernels(plan: Plan, case: Case) -> list[str]:
    """Starts of the paths inside modules that either framework has one kernel for: nothing is called there."""
    targets = [load_backend(name).target for name in (plan.reference, case.config.train.backend)]
    modules = case.detector.graph.walk()
    return [f"{module.path}." for module in modules if any(target.native(module) for target in targets)]


def judged(
    plan: Plan,
    case: Case,
    session: Session,
    point: int,
    *,
    first_seed: int = CANDIDATE,
    values: StepValues | None = None,
    make: Make | None = None,
) -> list[Row]:
    """All tensors at a point. What is different on the training's own batch is looked at again on the others, one after
    the other, and is guilty if it is different on all of them.

    make: has the reference make looks that it has not made yet; without it they raise LooksMissing.
    """
    shelf, levels = Shelf.of(plan), levels_at(plan, point)
    seeds = range(first_seed, first_seed + RUNS)

    results: list[Result] = []

    def look_at(batch: int) -> Result:
        look = Look(point, batch)
        if not shelf.has(look, levels):
            if make is None:
                raise LooksMissing([look])
            make([look])
        results.append(looked_at(plan, case, session, look, seeds, values))
        return results[-1]

    result = look_at(0)
    suspects = {finding.name for finding in result.findings if finding.status == "different"}
    cleared: dict[str, str] = {}
    for batch in range(1, BATCHES):
        if suspects:
            still = {finding.name for finding in look_at(batch).guilty()}
            cleared |= dict.fromkeys(suspects - still, f"not on that of step {Look(point, batch).step(case)}")
            suspects &= still
    if suspects:
        jumps = "with other states or batches the reference jumps as far against itself"
        cleared |= dict.fromkeys(within_jumps(results, suspects, shelf.jumps()), jumps)
    rows = []
    for finding in result.findings:
        row = Row(step=point, **asdict(finding))
        if finding.name in cleared:
            row.status = "kink"
            row.words = f"on this batch {row.words}; {cleared[row.name]}"
        rows.append(row)
    return rows


def within_jumps(results: Sequence[Result], suspects: set[str], jumps: Mapping[str, float]) -> set[str]:
    """Of tensors that are different on all batches, those that activations on the other side of zero account for.

    A framework whose sums are less exact than a one-ulp change flips more of them than the self-runs do, in some layers
    on two batches of three. Excused are gradients that lie apart no further than 4 times what the reference itself
    shows anywhere; and the state after the step, if there was such a gradient on every batch, because clipping by the
    norm carries it to all weights. A fault of the optimiser leaves the gradients alone, and is not excused.
    """
    found = [{finding.name: finding for finding in result.findings} for result in results]
    near = {name for name in suspects if all(one[name].max_rel <= DOUBTFUL * jumps.get(name, 0.0) for one in found)}
    jumped = [
        any(f.status == "different" and f.max_rel <= DOUBTFUL * jumps.get(f.name, 0.0)
            for f in result.findings if f.level == "grad")
        for result in results
    ]  # fmt: skip
    return {name for name in near if name.startswith("grad/") or (name.startswith("step/") and all(jumped))}


def lenient(result: Result) -> Result:
    """Batch norm's statistics are sums of as many values as a layer has pixels. MindSpore and Paddle on CPUs lose up to
    70 ulp in 131,072, where torch loses 3: that is no fault of the network."""
    for finding in result.findings:
        statistic = finding.name.endswith(BUFFERS) and finding.level == "step"
        if finding.status == "different" and statistic and finding.max_rel < INEXACT_SUM:
            finding.status = "doubtful"
    return result
