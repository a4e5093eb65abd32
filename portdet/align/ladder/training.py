"""Level `train`: whole trainings, paired by seed, whose AP has to be equivalent within the plan's margin."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from portdet.align.finished import read_run, read_trace
from portdet.align.job import side_by_side
from portdet.align.ladder.equivalence import Paired, curve_area, holm, paired
from portdet.align.ladder.outcome import Interval, Outcome, Row, Series
from portdet.align.ladder.plan import Plan
from portdet.align.rule import Trace, blind, exact_checks
from portdet.align.runs import Runs
from portdet.errors import PortdetError
from portdet.report.align_reference import values_of
from portdet.report.align_run import AlignRun, BackendRun, Check, final_score

LEVEL = "train"
SCORES = ("AP50 final", "AP final", "curve area")
_POINTS = 400  # of a drawn line
_NOISY = "losses of the first step"  # the one exact check that has a tolerance


@dataclass(frozen=True)
class Run:
    """One finished training."""

    backend: BackendRun
    trace: Trace

    def score(self, name: str) -> float:
        """AP50 and AP: means of the last three validated epochs; the area is of AP50's curve. NaN if undefined."""
        if name != "curve area":
            return final_score(self.backend, name.split()[0])
        curve = values_of(self.backend.epochs, "AP50")
        return curve_area(list(curve), list(curve.values())) if curve else float("nan")


@dataclass
class Arm:
    """A backend's finished trainings by seed, and what those printed that failed."""

    name: str
    runs: dict[int, Run] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def series(self) -> list[Series]:
        """AP50 by epoch and loss by step: means over the seeds, and the range that they span."""
        curves = [values_of(run.backend.epochs, "AP50") for run in self.runs.values()]
        epochs = sorted(set.intersection(*(set(curve) for curve in curves)))
        losses = [run.backend.step_losses for run in self.runs.values()]
        steps = min(len(values) for values in losses)
        block = -(-steps // _POINTS) or 1
        places = list(range(0, steps, block))
        blocks = [[float(np.mean(values[at : min(at + block, steps)])) for at in places] for values in losses]
        return [
            _span("AP50 by epoch", self.name, [float(e) for e in epochs], [[c[e] for e in epochs] for c in curves]),
            _span("loss by step", self.name, [float(at) for at in places], blocks),
        ]


def outcome(plan: Plan, say: Callable[[str], None]) -> tuple[list[Outcome], AlignRun]:
    """Train `plan.seeds` times on every backend and judge the pairs; an outcome a backend, the reference's first.

    Finished runs in the plan's folder are kept, so that asking again costs nothing and says the same. The AlignRun is
    of the first seed, with the verdict over all. Raises PortdetError if no backend, or not the reference, finished.
    """
    start = time.perf_counter()
    names = [plan.reference, *(name for name in plan.backends if name != plan.reference)]
    config = plan.configuration(plan.reference)
    if config.train.pretrained and not plan.weights:
        raise PortdetError("train.pretrained is set, but the plan has no initial weights", fix="set plan.weights")
    weights = Path(plan.weights) if plan.weights else None
    trainings = Runs(config, names, plan.place, say, seeds=plan.seeds, weights=weights, keep=True)
    trainings.train()
    reference, *others = (_arm(trainings, name) for name in names)
    if not reference.runs:
        raise PortdetError(f"the reference, {reference.name}, did not finish", fix="\n".join(reference.failed))
    outcomes = [_scatter(reference), *(compared(reference, other, plan.margin) for other in others)]
    for each in outcomes:
        each.seconds = time.perf_counter() - start
    return outcomes, _summary(plan, names, outcomes, {arm.name: arm for arm in (reference, *others)})


def compared(reference: Arm, candidate: Arm, margin: float) -> Outcome:
    """Exact gates for each pair, then the scores: by equivalence of n pairs, or by today's rule for a single one."""
    seeds = sorted(reference.runs.keys() & candidate.runs.keys())
    if not seeds:
        return Outcome.failed(LEVEL, candidate.name, "\n".join(candidate.failed) or "no pair of finished trainings")
    pairs = [(reference.runs[seed], candidate.runs[seed]) for seed in seeds]
    several = len(pairs) > 1
    rows = [
        _exact_row(check, f", seed {seed}" if several else "")
        for seed, pair in zip(seeds, pairs, strict=True)
        for check in exact_checks([run.trace for run in pair], [reference.name, candidate.name])
    ]
    tests = _tests(pairs, margin)
    learned = bool(np.mean([ours.score("AP50 final") for ours, _ in pairs]) > margin)
    if several:
        rows += [_score_row(name, tests.get(name), learned) for name in SCORES]
    else:
        rows.append(_single_row(pairs[0], margin))
    found = Outcome.of(
        LEVEL, candidate.name, rows, series=candidate.series(), facts=_facts(pairs, tests, candidate),
        intervals=[_interval(name, test, learned) for name, test in tests.items()],
    )  # fmt: skip
    found.words = _words(found, tests, margin)
    if candidate.failed:
        found.crashed = "\n".join(candidate.failed)
        found.passed = found.passed and None
    return found


def _arm(trainings: Runs, backend: str) -> Arm:
    arm = Arm(backend)
    for number in range(trainings.seeds):
        name = trainings.name(backend, number)
        if name in trainings.crashed:
            arm.failed.append(f"{name}: {trainings.crashed[name]}")
            continue
        folder = trainings.folder / name
        arm.runs[trainings.config.train.seed + number] = Run(
            read_run(folder, backend, trainings.folder), read_trace(folder)
        )
    return arm


def _tests(pairs: Sequence[tuple[Run, Run]], margin: float) -> dict[str, Paired]:
    """By score; one that a run lacks is left out."""
    differences = {name: [theirs.score(name) - ours.score(name) for ours, theirs in pairs] for name in SCORES}
    return {name: paired(values, margin) for name, values in differences.items() if np.isfinite(values).all()}


def _exact_row(check: Check, seed: str) -> Row:
    good, bad = ("noise", "different") if check.name == _NOISY else ("same", "broken")
    return Row(f"rule/{check.name}{seed}", good if check.passed else bad, check.detail)


def _score_row(name: str, test: Paired | None, learned: bool) -> Row:
    """learned: whether the reference's AP50 is above the margin, so that what learns nothing would not pass."""
    if test is None:
        return Row(name, "broken", "a run has no score")
    if not learned and test.verdict == "equivalent":
        words = (
            f"the reference's AP50 is not above the margin {test.margin:g}, so a model that learns nothing would pass, "
            f"too: {test.words()}"
        )
        return Row(name, "unjudged", words, tolerance=test.margin)
    status = {"equivalent": "noise", "different": "different", "inconclusive": "unjudged"}[test.verdict]
    return Row(name, status, f"{test.verdict}: {test.words()}", tolerance=test.margin)


def _single_row(pair: tuple[Run, Run], margin: float) -> Row:
    """One run each: an equal pair may lie far apart by chance, so this shows only that nothing is grossly different."""
    ours, theirs = (run.score("AP50 final") for run in pair)
    words = f"{ours:.3f} and {theirs:.3f}, margin {margin:g}; one run each"
    why = blind([run.backend for run in pair], margin)
    if np.isnan([ours, theirs]).all() or (why and abs(theirs - ours) <= margin):
        return Row("AP50 final", "unjudged", f"{words}; {why}", tolerance=margin)
    return Row("AP50 final", "noise" if abs(theirs - ours) <= margin else "different", words, tolerance=margin)


def _interval(name: str, test: Paired, learned: bool) -> Interval:
    one, verdict = test.n == 1, test.verdict if learned or test.verdict != "equivalent" else "inconclusive"
    return Interval(
        name, test.mean, test.low, test.high, test.margin, test.n, verdict,
        power=None if one else test.power, needed=None if one else test.needed,
    )  # fmt: skip


def _facts(pairs: Sequence[tuple[Run, Run]], tests: dict[str, Paired], candidate: Arm) -> dict[str, str]:
    n = len(pairs)
    facts = {"paired seeds": str(n), "AP50 final of each": ", ".join(f"{b.score('AP50 final'):.3f}" for _, b in pairs)}
    if n == 1:
        return facts | {"equivalence": "one run each shows no scatter, so no equivalence either: --seeds 3 or more"}
    for name, test in tests.items():
        needed = f"{test.needed} seeds" if test.needed else "more than 1000 seeds"
        facts[name] = (
            f"mean {test.mean:+.4f}, SD {test.sd:.4f}, 90 % interval {test.low:+.4f} to {test.high:+.4f}; "
            f"p {max(test.p_low, test.p_high):.2g} of a difference of the margin or more, {test.p_zero:.2g} of none; "
            f"power {test.power:.0%} with {n} seeds, 80 % with {needed}"
        )
    facts["epochs that differ"] = _epochs_that_differ(pairs)
    return facts


def _epochs_that_differ(pairs: Sequence[tuple[Run, Run]]) -> str:
    """By a t-test of AP50 at each epoch, at 5 % over all of them."""
    curves = [[values_of(run.backend.epochs, "AP50") for run in pair] for pair in pairs]
    epochs = sorted(set.intersection(*(set(curve) for pair in curves for curve in pair)))
    p_values = [paired([b[e] - a[e] for a, b in curves], 1.0).p_zero for e in epochs]
    differ = [f"{epoch:g}" for epoch, p in zip(epochs, holm(p_values), strict=True) if p < 0.05]
    return f"{', '.join(differ) or 'none'} of {len(epochs)} (paired t-tests, Holm, 5 %)"


def _words(found: Outcome, tests: dict[str, Paired], margin: float) -> str:
    if found.first:
        row = next(row for row in found.rows if row.guilty)
        return f"{row.name.removeprefix('rule/')}: {row.words}."
    undecided = next((row for row in found.rows if row.status == "unjudged"), None)
    if undecided is None:
        final = tests["AP50 final"]
        return f"{'No gross difference: ' if final.n == 1 else ''}AP50 {final.words()}."
    test = tests.get(undecided.name)
    if test is None or test.n == 1:
        return f"{undecided.name}: {undecided.words}."
    advice = f"; about {test.needed} seeds would show equivalence, if there is any" if test.needed > test.n else ""
    return f"{undecided.name}: {undecided.words.removeprefix('inconclusive: ')}{advice}."


def _scatter(reference: Arm) -> Outcome:
    """The reference's own line: what its seeds do to its score."""
    finals = [run.score("AP50 final") for run in reference.runs.values()]
    facts = {"AP50 final of each": ", ".join(f"{value:.3f}" for value in finals)}
    words = f"AP50 {np.mean(finals):.3f} at the end"
    if len(finals) > 1:
        words += f", SD {np.std(finals, ddof=1):.3f} over {len(finals)} seeds"
    passed = bool(np.isfinite(finals).all()) or None
    return Outcome(
        LEVEL, reference.name, passed, words + ".", checked=len(finals), facts=facts, series=reference.series(),
        crashed="\n".join(reference.failed),
    )  # fmt: skip


def _summary(plan: Plan, names: Sequence[str], outcomes: Sequence[Outcome], arms: dict[str, Arm]) -> AlignRun:
    """The first seed's runs side by side, with the verdict over all seeds."""
    seed = plan.configuration(plan.reference).train.seed
    first = [name for name in names if seed in arms[name].runs]
    if not first:
        raise PortdetError("no training of the first seed finished", fix="run it again: finished ones are kept")
    run = side_by_side(plan.configuration(plan.reference), plan.place, first, plan.margin)
    states = [each.passed for each in outcomes]
    if plan.seeds > 1:
        run.rule_text = (
            "passed if paired runs start from the same weights (bit for bit), see the same batches, learning rates "
            "and EMA decays at every step, and the 90 % intervals of the mean difference over "
            f"{plan.seeds} seeds, of final AP50, final AP and the area under AP50's curve, lie inside of "
            f"+-{plan.margin:g} (two one-sided t-tests at 5 %); different if an interval lies outside; undecided "
            "otherwise."
        )
        run.checks = [
            Check(f"{each.backend}: {row.name.removeprefix('rule/')}", _held(row), row.words)
            for each in outcomes for row in each.rows
        ]  # fmt: skip
        run.passed = False if False in states else None if None in states else True
        word = {True: "equivalent", False: "different", None: "undecided"}
        run.verdict = " ".join(f"{each.backend}: {word[each.passed]}: {each.words}" for each in outcomes[1:])
    failed = [name for name in names if arms[name].failed]
    if failed:
        run.passed = run.passed and None
        run.verdict = f"Undecided: {', '.join(failed)} did not finish. {run.verdict}"
    return run


def _held(row: Row) -> bool | None:
    return False if row.guilty else None if row.status == "unjudged" else True


def _span(kind: str, name: str, xs: list[float], lines: list[list[float]]) -> Series:
    values: np.ndarray[Any, np.dtype[np.float64]] = np.array(lines, np.float64).reshape(len(lines), len(xs))
    line = Series(kind, name, xs, values.mean(axis=0).tolist())
    if len(lines) > 1:
        line.low, line.high = values.min(axis=0).tolist(), values.max(axis=0).tolist()
    return line
