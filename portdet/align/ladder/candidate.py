"""A candidate's part of the ladder, in a process of its own: `python -m portdet.align.ladder.candidate`."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from portdet.align.ladder import rules
from portdet.align.ladder.case import Case, open_case, planned
from portdet.align.ladder.looks import Look, LooksMissing, Make, Shelf, asked_points, judged
from portdet.align.ladder.numbers import complete
from portdet.align.ladder.outcome import Row
from portdet.align.ladder.plan import Plan
from portdet.align.ladder.shown import tell
from portdet.outside import read_json
from portdet.processes.child import serve
from portdet.session import Session, StepValues

ABOUT = TypeAdapter(dict[str, Any])


def rows_at(
    plan: Plan,
    case: Case,
    session: Session,
    point: int,
    *,
    values: StepValues | None = None,
    make: Make | None = None,
) -> list[Row]:
    """All that a session shows at a point, against the reference: rules first, then tensors in order of appearance.

    Three perturbed runs, the reference's whole state loaded in each; what is different is looked at again with other
    batches. values: what the candidate decides for the step, if not what the case says. make: has the reference make
    looks that are missing (`numbers.complete`); without it they raise `LooksMissing`, whose `looks` they are.
    """
    look, shelf = Look(point), Shelf.of(plan)
    if not shelf.dump(look).is_file():
        raise LooksMissing([look])
    theirs = rules.entered(case.batch(point), values or case.values(point))
    gates = rules.at(point, shelf.opened(look).about, theirs)
    return [*gates, *judged(plan, case, session, point, values=values, make=make)]


def candidate(plan: Plan, backend: str) -> dict[str, Any]:
    """Rows of all points that the plan asks for, and the seconds that each took.

    Where anything is different, the reference makes the looks with other batches in a process of its own, while the
    session here waits: some frameworks take a minute to compile.
    """
    case, shelf = planned(plan, backend), Shelf.of(plan)
    session = open_case(case, plan.place / "sources" / backend)
    ours = read_json(shelf.about, ABOUT, "delete the reference in this folder; it is made anew", nan=True)
    theirs = rules.about(case, session)
    rows = rules.once(ours, theirs)
    seconds: dict[str, float] = {}
    for point in asked_points(plan, case):
        start = time.perf_counter()
        found = rows_at(plan, case, session, point, make=partial(complete, plan, say=tell))
        rows += found
        seconds[str(point)] = time.perf_counter() - start
        count = Counter(row.status for row in found)
        kinks = f", {count['kink']} on one batch alone" if count["kink"] else ""
        guilty = sum(row.guilty for row in found)
        tell(f"{backend} at step {point}: {len(found)} tensors and rules, {guilty} different{kinks}")
    session.close()
    return {"rows": [asdict(row) for row in rows], "seconds": seconds, "facts": theirs["facts"]}


def work(request: Any) -> Any:
    return candidate(Plan.of(request["plan"]), request["backend"])


if __name__ == "__main__":
    serve(work)
