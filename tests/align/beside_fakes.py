"""The half of a ladder that is climbed beside the other, on levels that take no time; faults by `plan.extra`.

`extra["faults"]`: 'level backend' -> as in `Fakes`; 'dies' as a whole: the process ends without a word.
"""

from __future__ import annotations

import os
from typing import Any

from portdet.align.ladder.job import LadderJob
from portdet.align.ladder.plan import Plan
from portdet.align.ladder.shown import tell
from portdet.processes.child import serve
from tests.align.ladder_fakes import Fakes


def work(request: dict[str, Any]) -> None:
    plan, fakes = Plan.of(request), Fakes()
    fakes.install(setattr)
    for unit, fault in plan.extra["faults"].items():
        level, backend = unit.split()
        fakes.faults[level, backend] = fault
    if plan.extra.get("dies"):
        os._exit(9)
    LadderJob(plan, tell).climb()


if __name__ == "__main__":
    serve(work)
