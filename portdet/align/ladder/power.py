"""Level `power`: faults planted on one backend, and whether the gates catch each and name its place first.

Each fault goes through what a healthy candidate goes through: three perturbed runs, their median against the tolerances
of the reference itself, a second and a third batch for whatever is different. Its levels are looked at in turn, so that
one that shows in the forward pass costs no training step.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from threading import Thread
from typing import Any

from portdet.align.compare import Dump
from portdet.align.ladder.candidate import rows_at
from portdet.align.ladder.case import open_case, planned
from portdet.align.ladder.fault_planting import Fault, Planting, applicable
from portdet.align.ladder.fault_rules import LEVELS as PUBLISHED
from portdet.align.ladder.fault_rules import RULES, flagged
from portdet.align.ladder.fault_session import behind
from portdet.align.ladder.faults import BANK
from portdet.align.ladder.looks import BATCHES, SMALL_RUN, Look, Shelf, observe
from portdet.align.ladder.numbers import complete
from portdet.align.ladder.outcome import Outcome, Planted, Row
from portdet.align.ladder.plan import Plan
from portdet.align.ladder.shown import Say, run_shown, tell
from portdet.align.probe import LEVELS
from portdet.errors import PortdetError
from portdet.processes.child import serve
from portdet.processes.cores import cores
from portdet.session import Arrays, Session

CAUGHT, NAMED = 0.95, 0.9
"""Least shares of the faults that have to be caught, and of the caught ones whose place has to be named first. Of those
that show in the very first step none may be missed."""

HEALTHY = range(30_000, 30_003)  # seeds of runs without a fault, for the false alarms of the published rules
_THIS = "portdet.align.ladder.power"
_PROCESSES = 4  # at most, for small detectors, whose kernels leave cores idle
_STAGES = (("weights", "forward"), ("loss", "grad"), ("step",))


def outcome(plan: Plan, say: Say) -> Outcome:
    """Try the bank on `plan.faulty` (else on the reference). The reference makes what is missing of its own first."""
    began = time.perf_counter()
    backend = plan.faulty or plan.reference
    wide = replace(
        plan, points=_points(plan, planned(plan, backend).steps), levels=tuple(dict.fromkeys([*plan.levels, "steps"]))
    )
    complete(wide, [Look(point, batch) for point in wide.points for batch in range(BATCHES)], say)
    small, most = Shelf.of(wide).dump(Look(0)).stat().st_size < SMALL_RUN, cores()
    shares = min(_PROCESSES, most) if small else 1
    threads = plan.config["train"]["threads"] or (most // shares if shares > 1 else 0)
    config = {**plan.config, "train": {**plan.config["train"], "threads": threads}}
    request = {"plan": replace(wide, config=config).plain(), "backend": backend, "only": plan.extra.get("faults", [])}
    answer = run_shown(_THIS, {**request, "share": [0, shares]}, say, _log(wide, backend, 0))
    tried = sorted(answer["tried"])
    planted, rows = [Planted(**fault) for _, fault, _ in tried], [Row(**row) for _, _, row in tried]
    found = judged(backend, planted, rows, answer["healthy"], time.perf_counter() - began)
    if request["only"]:
        found.words += " Only a selection of the bank was tried."
    return found


def _log(plan: Plan, backend: str, share: int) -> Path:
    return plan.place / "logs" / f"power-{backend}{share or ''}.log"


def _points(plan: Plan, steps: int) -> tuple[int, ...]:
    """The start; the first point at which momentum and average have a past; for what is not caught there, the last one,
    where an untrained head no longer predicts boxes so large that nothing else counts beside them."""
    later = [point for point in plan.points if 2 <= point < steps] or [2]
    return tuple(dict.fromkeys((0, later[0], later[-1])))


def judged(
    backend: str, planted: Sequence[Planted], rows: Sequence[Row], healthy: Sequence[dict[str, bool]], seconds: float
) -> Outcome:
    """The level's outcome. healthy: what the published rules say to each run without a fault."""
    caught = [fault for fault in planted if fault.caught]
    named = [fault for fault in caught if fault.named]
    quick = [fault for fault in planted if fault.one_step]
    late = [fault.name for fault in quick if not fault.caught]
    enough = not late and len(caught) >= CAUGHT * len(planted) and len(named) >= NAMED * len(caught)
    gates = Counter(fault.gate for fault in caught)
    facts = {
        "caught": f"{len(caught)} of {len(planted)}",
        "caught of those that show in one step": f"{sum(fault.caught for fault in quick)} of {len(quick)}",
        "place named first": f"{len(named)} of {len(caught)}",
        "by gate": ", ".join(f"{gate} {number}" for gate, number in gates.most_common()),
    }
    for rule in RULES:
        number = sum(fault.rules.get(rule, False) for fault in planted)
        alarms = sum(said[rule] for said in healthy)
        facts[rule] = f"{number} of {len(planted)}, and {alarms} of {len(healthy)} healthy runs"
    failed = late + [fault.name for fault in planted if not fault.caught] + [f.name for f in caught if not f.named]
    words = f"{facts['caught']} planted faults caught, {facts['place named first']} with the right place named first"
    words += f"; missed one that shows in one step: {', '.join(late)}" if late else ""
    return Outcome(
        "power", backend, enough if planted else None, f"{words}.",
        first=failed[0] if failed else "", checked=len(planted), guilty=len(planted) - len(caught), seconds=seconds,
        rows=list(rows), facts=facts, planted=list(planted),
    )  # fmt: skip


# ---------------------------------------------------------------------- the child
class Trial:
    """The bank on one backend, in this process."""

    def __init__(self, plan: Plan, backend: str, share: int = 0) -> None:
        self.plan, self.backend = plan, backend
        self.case = planned(plan, backend)
        self.folder = plan.place / "sources" / f"faulty-{backend}{share or ''}"
        self.whole = self._open("healthy")  # faults at the edge need no other session

    def _open(self, name: str, planting: Planting | None = None) -> Session:
        """Eager: the gates are tried here, and to compile every fault would take longer than all the rest."""
        detector, recipe = (planting.detector, planting.recipe) if planting else (None, None)
        return open_case(self.case, self.folder / name, detector=detector, recipe=recipe, mode="eager")

    def told(self, place: int, total: int, fault: Fault, planting: Planting) -> tuple[int, Any, Any]:
        """`tried`, in plain data, and a line for whoever waits."""
        found, row = self.tried(place, fault, planting)
        how = f"caught by {found.gate}, first in {found.first}" if found.caught else "MISSED"
        wrong = "" if found.named or not found.caught else f" instead of {found.expected}"
        tell(f"fault {place + 1} of {total}, {fault.name}: {how}{wrong}")
        return place, asdict(found), asdict(row)

    def tried(self, number: int, fault: Fault, planting: Planting) -> tuple[Planted, Row]:
        """Plant one fault and see what is found."""
        changed = planting.detector is not None or planting.recipe is not None
        session = self._open(str(number), planting) if changed else self.whole
        try:
            point, first = self._first(session, planting)
            rules = self._published(session, planting, point)
        finally:
            if changed:
                session.close()
        return _found(fault, planting, point, first, rules)

    def _first(self, session: Session, planting: Planting) -> tuple[int, Row | None]:
        """The first guilty row and its point; the last point if there is none."""
        for point in self.plan.points:
            if point < planting.since:
                continue
            values = planting.values(point) if planting.values else None
            for levels in (LEVELS,) if point else _STAGES:
                asked = self.plan if point else replace(self.plan, levels=levels)  # `steps` asks for all everywhere
                rows = rows_at(asked, self.case, self._at(session, planting, point), point, values=values)
                if guilty := next((row for row in rows if row.guilty), None):
                    return point, guilty
        return self.plan.points[-1], None

    def _at(self, session: Session, planting: Planting, point: int) -> Session:
        return behind(planting.edge, session, point) if planting.edge else session

    def _published(self, session: Session, planting: Planting, point: int, seed: int | None = None) -> dict[str, bool]:
        """What the published rules say to one run at a point."""
        shelf, seen = Shelf.of(self.plan), Arrays()
        session = self._at(session, planting, point)
        state = dict(Dump(shelf.state(point)))
        observe(session, self.case, Look(point), state, seen.__setitem__, PUBLISHED, seed=seed)
        return flagged(seen, Dump(shelf.dump(Look(point))))

    def healthy(self) -> list[dict[str, bool]]:
        """What the published rules say to runs without a fault, an ulp away."""
        return [self._published(self.whole, Planting(()), 0, seed) for seed in HEALTHY]


def _found(
    fault: Fault, planting: Planting, point: int, first: Row | None, rules: dict[str, bool]
) -> tuple[Planted, Row]:
    stands = f"stands for: {fault.real}; planted in the {fault.where}, at {planting.expected}"
    one_step = planting.since == 0
    if first is None:
        row = Row(fault.name, "missed", f"nothing was different; {stands}", point)
        return Planted(fault.name, planting.expected, False, one_step=one_step, rules=rules), row
    named, gate = planting.names(first.name), _gate(first, point)
    place = "" if named else ", which is not its place"
    words = f"by {gate}, first in {first.name}{place}: {first.words}; {stands}"
    row = replace(first, name=fault.name, status="caught", words=words, step=point)
    return Planted(fault.name, planting.expected, True, named, first.name, gate, one_step, rules), row


def _gate(row: Row, point: int) -> str:
    """The level that finds it: its own at the start, `steps` later."""
    kind = row.name.partition("/")[0]
    return "rules" if kind == "rule" else "steps" if point else kind


def work(request: Any) -> Any:
    """One share of the bank; the first share starts the others, which end with it."""
    number, shares = request["share"]
    plan, only = Plan.of(request["plan"]), set(request["only"])
    others: list[Any] = []
    threads = []
    for other in range(1, shares) if not number else ():
        asked = {**request, "share": [other, shares]}, tell, _log(plan, request["backend"], other)
        threads.append(Thread(target=lambda asked=asked: others.append(run_shown(_THIS, *asked)), daemon=True))
        threads[-1].start()
    trial = Trial(plan, request["backend"], number)
    bank = [pair for pair in applicable(BANK, trial.case) if not only or pair[0].name in only]
    tried = [trial.told(place, len(bank), *bank[place]) for place in range(number, len(bank), shares)]
    healthy = [] if number else trial.healthy()
    for thread in threads:
        thread.join()
    if len(others) < len(threads):
        raise PortdetError("a process that tried planted faults failed", where=str(plan.place / "logs"))
    return {"tried": tried + [one for answer in others for one in answer["tried"]], "healthy": healthy}


if __name__ == "__main__":
    serve(work)
