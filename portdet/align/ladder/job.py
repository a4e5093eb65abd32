"""The ladder itself: levels in order, each unit of work in a process of its own, its outcome kept as a file.

A unit whose outcome is there is not run again, so that a ladder that was stopped goes on where it was; one that crashed
is tried again. One backend's crash leaves the others' results as they are.
"""

from __future__ import annotations

import platform
import shutil
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from portdet.align.against import judge_against
from portdet.align.ladder import beside, free, junit, numbers, ops, power, ranks, training
from portdet.align.ladder.outcome import LEVELS, Outcome, load, save
from portdet.align.ladder.plan import Plan
from portdet.align.ladder.tables import line, markdown
from portdet.align.ladder.verdict import judged
from portdet.align.published import read_reference
from portdet.errors import PortdetError
from portdet.files import write_text
from portdet.report import ladder_page
from portdet.report.align_reference import Reference
from portdet.report.align_run import AlignRun, Check
from portdet.report.ladder_data import LadderReport
from portdet.train.folder import versions

LAST_LINES = 12

Say = Callable[[str], None]
Work = Callable[[Plan], Iterable[Outcome]]


@dataclass
class LadderJob:
    """Climbs the plan's levels that are not done yet.

    The trainings are held against the published curves that the plan names, too.
    """

    plan: Plan
    say: Say

    def run(self) -> LadderReport:
        """Run what is missing; writes plan.json, align.json, align.html, align.md and junit.xml.

        KeyboardInterrupt leaves finished units in place, and says how to go on.
        """
        plan = self.plan
        published(plan)  # better now than after hours of training
        plan.save()
        for left in plan.place.glob("runs-*"):  # a killed child's dumps
            shutil.rmtree(left, ignore_errors=True)
        here, aside = beside.halves(plan)
        try:
            with beside.climbing(aside, self.say) as failed:
                replace(self, plan=here).climb()
            if aside and failed:
                self._lost(aside, failed[0])
        except KeyboardInterrupt:
            self.say(f"stopped; what is finished is kept. To go on: portdet align --resume {plan.folder}")
            raise
        report = self.report()
        write(plan, report)
        return report

    def climb(self) -> None:
        """The levels one after another, low to high."""
        plan = self.plan
        self._each("ops", ops.outcome)
        self._numbers()
        self._units(("free",), candidates(plan), lambda part: free.outcomes(part, self.say))
        self._train()
        self._each("ranks", ranks.outcome)
        self._units(("power",), (plan.faulty or plan.reference,), lambda part: [power.outcome(part, self.say)])

    def report(self) -> LadderReport:
        """What the folder holds."""
        plan, outcomes = self.plan, outcomes_of(self.plan)
        passed, verdict = judged(plan.levels, outcomes, plan.reference)
        if passed and "train" in plan.levels and plan.seeds == 1:
            verdict += " One training each bounds no small difference of AP: --seeds 3 or more tests equivalence."
        config = plan.configuration(plan.reference)
        backends = list(dict.fromkeys([*plan.backends, *(outcome.backend for outcome in outcomes)]))
        training = self._training()
        environment = {
            "this machine": {"platform": platform.platform(), "python": platform.python_version(), **versions()}
        }
        for run in training.backends if training else ():
            environment[run.name] = run.environment
        return LadderReport(
            config.train.name, verdict, passed, plan.reference, backends, list(plan.levels), outcomes, training,
            seeds=plan.seeds, margin=plan.margin, command=plan.extra.get("command", ""), environment=environment,
            facts=_facts(plan),
        )  # fmt: skip

    def _lost(self, aside: Plan, printed: str) -> None:
        """What was to be climbed beside this and has left no outcome has crashed."""
        for level in aside.levels:
            for backend in trained(aside) if level == "train" else aside.backends:
                if self._kept(level, backend) is None:
                    save(aside.outcome_file(level, backend), Outcome.failed(level, backend, printed))

    def _each(self, level: str, work: Callable[[Plan, str, Say], Outcome]) -> None:
        """A level whose units are single backends."""
        for backend in self.plan.backends:

            def one(part: Plan, backend: str = backend) -> list[Outcome]:
                return [work(part, backend, self.say)]

            self._units((level,), (backend,), one)

    def _numbers(self) -> None:
        """The teacher-forced levels, all of a backend in one process."""
        levels = tuple(level for level in numbers.NUMBERS if level in self.plan.levels)
        for backend in (self.plan.reference, *candidates(self.plan)):
            # the reference has held-out runs against itself, which are an outcome of the highest of these levels
            own = levels[-1:] if backend == self.plan.reference else levels

            def work(part: Plan, backend: str = backend) -> Iterable[Outcome]:
                return numbers.outcomes(replace(part, levels=levels), backend, self.say).values()

            self._units(own, (backend,), work)

    def _train(self) -> None:
        """The trainings, of all backends at once; curves of others are held against them."""

        def work(part: Plan) -> list[Outcome]:
            found, run = training.outcome(replace(part, backends=self.plan.backends), self.say)
            if curves := published(self.plan):
                run.reference = curves
                found.append(_against(run))
            run.save(self.plan.place / "training.json")
            return found

        self._units(("train",), trained(self.plan), work)

    def _training(self) -> AlignRun | None:
        path = self.plan.place / "training.json"
        return AlignRun.load(path) if "train" in self.plan.levels and path.is_file() else None

    def _units(self, levels: Sequence[str], backends: Sequence[str], work: Work) -> None:
        """Have `work` make the outcomes of these levels and backends that are not there yet; a crash is one, too."""
        asked = [(level, backend) for level in levels if level in self.plan.levels for backend in backends]
        done = {unit for unit in asked if (kept := self._kept(*unit)) and not kept.crashed}
        if not (missing := [unit for unit in asked if unit not in done]):
            for unit in asked:
                self.say(f"{line(load(self.plan.outcome_file(*unit)))} (done before)")
            return
        part = replace(
            self.plan,
            levels=tuple(dict.fromkeys(level for level, _ in missing)),
            backends=tuple(dict.fromkeys(backend for _, backend in missing)),
        )
        self.say(f"--- {', '.join(part.levels)}: {', '.join(part.backends)} ---")
        start = time.monotonic()
        outcomes, printed = _tried(work, part)
        found = {(outcome.level, outcome.backend) for outcome in outcomes}
        printed = printed or "it ended without a word about it"
        outcomes += [Outcome.failed(*unit, printed) for unit in missing if unit not in found]
        outcomes = [outcome for outcome in outcomes if (outcome.level, outcome.backend) not in done]
        for outcome in outcomes:
            outcome.seconds = outcome.seconds or round((time.monotonic() - start) / len(outcomes), 2)
            save(self.plan.outcome_file(outcome.level, outcome.backend), outcome)
            self.say(line(outcome))

    def _kept(self, level: str, backend: str) -> Outcome | None:
        path = self.plan.outcome_file(level, backend)
        return load(path) if path.is_file() else None


def published(plan: Plan) -> Reference | None:
    """The curves that the plan's trainings are held against, if any. Raises PortdetError where they cannot be read."""
    against = plan.extra.get("against") if "train" in plan.levels else None
    return read_reference(against, plan.extra.get("spread")) if against else None


def trained(plan: Plan) -> tuple[str, ...]:
    """The backends that the level `train` trains on."""
    return tuple(dict.fromkeys((plan.reference, *plan.backends)))


def candidates(plan: Plan) -> tuple[str, ...]:
    """The backends that are held against the reference."""
    return tuple(name for name in plan.backends if name != plan.reference)


def outcomes_of(plan: Plan) -> list[Outcome]:
    """All that the plan's folder holds of the levels asked for, low to high."""
    order = {name: number for number, name in enumerate(plan.backends)}
    found = [load(path) for level in LEVELS if level in plan.levels
             for path in sorted((plan.place / "levels" / level).glob("*.json"))]  # fmt: skip
    return sorted(found, key=lambda o: (LEVELS.index(o.level), order.get(o.backend, len(order))))


def write(plan: Plan, report: LadderReport) -> None:
    """All files that a ladder leaves beside the units' own."""
    report.save(plan.place / "align.json")
    junit.save(plan.place / "junit.xml", report)
    write_text(plan.place / "align.md", markdown(report) + "\n")
    ladder_page.save(plan.place / "align.html", report)


def _tried(work: Work, part: Plan) -> tuple[list[Outcome], str]:
    """What `work` gives, or what it said last."""
    try:
        return list(work(part)), ""
    except PortdetError as error:
        return [], str(error)
    except Exception:  # a fault of one level must not lose the others
        return [], "\n".join(traceback.format_exc().splitlines()[-LAST_LINES:])


def _against(run: AlignRun) -> Outcome:
    """The runs beside published curves, as one more outcome of `train`."""
    before = [*run.checks]
    try:
        judge_against(run)
    except PortdetError as error:  # hours of training are not thrown away for it
        run.checks.append(Check("published curves", None, error.what))
    checks = [check for check in run.checks if check not in before]
    worst = next(check for state in (False, None, True) for check in checks if check.passed is state)
    return Outcome("train", "published curves", worst.passed, f"{worst.name}: {worst.detail}", checked=len(checks))


def _facts(plan: Plan) -> dict[str, str]:
    return {
        "points": ", ".join(map(str, plan.points)),
        "self-runs": f"{plan.self_runs} of the reference, under one-ulp changes",
        "held-out runs": str(plan.held_out),
        "free steps": str(plan.free_steps),
        "folder": plan.folder,
    }
