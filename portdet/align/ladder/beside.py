"""Levels that need nothing of the others run beside them: `python -m portdet.align.ladder.beside` climbs them.

It is a ladder of its own, on the same folder: outcomes are files, so that nothing else has to pass between the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from threading import Event, Thread

from portdet.align.ladder.plan import Plan
from portdet.align.ladder.shown import Say, run_shown, tell
from portdet.errors import PortdetError
from portdet.processes.child import serve

MODULE = "portdet.align.ladder.beside"
LEVELS = ("ops", "train", "ranks")
"""The others share the reference's dumps. On tiny detectors the two halves take about as long as each other."""


def halves(plan: Plan) -> tuple[Plan, Plan | None]:
    """What is climbed here, and what beside it if the plan is parallel and has work for both."""
    aside = tuple(level for level in plan.levels if level in LEVELS)
    here = tuple(level for level in plan.levels if level not in LEVELS)
    if not (plan.parallel and aside and here):
        return plan, None
    return replace(plan, levels=here), replace(plan, levels=aside)


@contextmanager
def climbing(plan: Plan | None, say: Say) -> Iterator[list[str]]:
    """The plan is climbed as long as the context is open, which ends with it: the list then says how it failed, if so.

    An interruption of the context's own work stops the other, too.
    """
    failed: list[str] = []
    if plan is None:
        yield failed
        return
    stop = Event()

    def run() -> None:
        try:
            run_shown(MODULE, plan.plain(), say, plan.place / "logs" / "beside.log", stop=stop)
        except PortdetError as error:
            failed.append(str(error))
        except KeyboardInterrupt:
            failed.append("stopped")

    thread = Thread(target=run)
    thread.start()
    try:
        yield failed
        thread.join()
    except BaseException:
        stop.set()
        thread.join()
        raise


def work(request: dict[str, object]) -> None:
    from portdet.align.ladder.job import LadderJob  # which starts this one

    LadderJob(Plan.of(request), tell).climb()


if __name__ == "__main__":
    serve(work)
