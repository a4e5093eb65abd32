"""Level `free`: every backend trains by itself from the same weights on the same batches, and the losses are compared.

`python -m portdet.align.ladder.free` is the child: some trainings of one backend under one-ulp changes of the initial
weights. The judgement, in `horizon.py`, is the parent's.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from portdet.align.compare import perturb
from portdet.align.ladder.case import Case, open_case, planned
from portdet.align.ladder.horizon import CHAOS, RUNS, Envelope, judged
from portdet.align.ladder.outcome import Outcome, Row, Series
from portdet.align.ladder.plan import Plan
from portdet.align.ladder.shown import Say, run_shown, tell
from portdet.errors import PortdetError
from portdet.files import write_text
from portdet.outside import read_json
from portdet.processes.child import serve
from portdet.session import Batch, Session, StepValues
from portdet.train.loss_scale import loss_scale

LEVEL = "free"
KIND = "loss of each step"  # the chart
SELF_RUNS = 8  # of the reference, which set the bounds
CANDIDATE = 1000  # first seed of a candidate's changes; the reference's count from 0, and -1 changes nothing


def outcomes(plan: Plan, say: Say) -> list[Outcome]:
    """An outcome for each of the plan's backends but the reference, which is judged only where it is alone.

    The reference's losses are kept in the plan's folder. Raises PortdetError where the reference could not run.
    """
    envelope = reference(plan, say)
    others = [name for name in plan.backends if name != plan.reference] or [plan.reference]
    return [_outcome(plan, backend, envelope, say) for backend in others]


def reference(plan: Plan, say: Say) -> Envelope:
    """The reference's losses, run or, if it has run as this plan asks, read."""
    path, asked = plan.place / LEVEL / "reference.json", [plan.config, plan.reference, plan.weights, plan.free_steps]
    kept = read_json(path, _KEPT, "delete it; it is made anew", nan=True) if path.is_file() else None
    if kept and kept.asked == asked:
        losses = kept.losses
    else:
        losses = _run(plan, plan.reference, range(-1, SELF_RUNS), say)
        write_text(path, json.dumps({"asked": asked, "losses": losses}) + "\n")
    return Envelope.of(losses[0], losses[1:])


@dataclass
class _Kept:
    """reference.json: what was asked for, and the losses of the runs."""

    asked: list[Any]
    losses: list[list[float]]


_KEPT = TypeAdapter(_Kept)


def compared(envelope: Envelope, backend: str, losses: Sequence[Sequence[float]]) -> Outcome:
    """A candidate's runs against the reference's envelope."""
    rows = judged(envelope, losses)
    return Outcome.of(
        LEVEL, backend, rows, _words(envelope, rows), series=[_series(envelope, backend, losses)],
        facts=_facts(envelope),
    )  # fmt: skip


def losses_of(session: Session, case: Case, batches: Sequence[Batch], seed: int) -> list[float]:
    """Total losses of a training from the case's initial weights, moved by an ulp as `seed` says (-1: not at all).

    The loop's own decisions: a skipped step is no update of the average, and lowers the loss scale.
    """
    session.load_weights(case.initial if seed < 0 else perturb(case.initial, seed))
    scale, updates, found = loss_scale(case.config.optim.loss_scale), 0, []
    for step, batch in enumerate(batches):
        values = StepValues(case.schedule.lr_at(step), scale.scale, case.average.decay(updates))
        result = session.train_step(batch, values)
        found.append(result.losses["loss"])
        if not result.skipped and not math.isfinite(found[-1]):  # it stays so, and the parent is told where
            return found + [math.nan] * (len(batches) - len(found))
        scale.update(skipped=result.skipped, step=step)
        updates += not result.skipped
    return found


def _outcome(plan: Plan, backend: str, envelope: Envelope, say: Say) -> Outcome:
    start = time.perf_counter()
    try:
        found = compared(envelope, backend, _run(plan, backend, range(CANDIDATE, CANDIDATE + RUNS), say))
    except PortdetError as error:
        return Outcome.failed(LEVEL, backend, str(error))
    found.seconds = time.perf_counter() - start
    say(f"{backend}: {found.words}")
    return found


def _run(plan: Plan, backend: str, seeds: Sequence[int], say: Say) -> list[list[float]]:
    request = {"plan": plan.plain(), "backend": backend, "seeds": list(seeds)}
    log = plan.place / "logs" / f"{LEVEL}-{backend}.log"
    return [[float(x) for x in row] for row in run_shown("portdet.align.ladder.free", request, say, log)]


def _words(envelope: Envelope, rows: Sequence[Row]) -> str:
    if first := next((row for row in rows if row.guilty), None):
        return f"At step {first.step} the loss {first.words}."
    before = [row.ratio for row in rows if row.name == "loss"]
    words = (
        f"Its loss follows the reference's for {len(before)} steps, within {max(before, default=0):.2g} times the noise"
    )
    if len(rows) == len(before):
        return f"{words}; noise never exceeds {CHAOS:.0%} in so few steps."
    return f"{words}; from there on, where noise exceeds {CHAOS:.0%}, it stays among the reference's own runs."


def _facts(envelope: Envelope) -> dict[str, str]:
    number, before, after = envelope.healthy
    steps = len(envelope.base)
    return {
        "horizon": f"step {envelope.horizon}" if envelope.horizon < steps else f"not within {steps} steps",
        "self-runs": f"{len(envelope.runs)} of the reference, under one-ulp changes of the initial weights",
        "healthy runs": (
            f"{number} sets of {RUNS} of these against the rest: largest ratio {before:.2g} before the horizon, "
            f"{after:.2g} after it"
        ),
    }


def _series(envelope: Envelope, backend: str, losses: Sequence[Sequence[float]]) -> Series:
    """The median run, and what the reference's runs span."""
    every = np.vstack([envelope.base, envelope.runs])
    steps = [float(step) for step in range(len(envelope.base))]
    middle = np.median(np.array(losses, np.float64), axis=0).tolist()
    line = Series(KIND, backend, steps, middle, every.min(axis=0).tolist(), every.max(axis=0).tolist())
    if envelope.horizon < len(steps):
        line.marks["horizon"] = float(envelope.horizon)
    return line


def work(request: Any) -> list[list[str]]:
    """Losses of each asked-for run, as text, since JSON lacks some numbers."""
    plan, backend = Plan.of(request["plan"]), request["backend"]
    case = planned(plan, backend)
    session = open_case(case, plan.place / "sources" / backend)
    batches = list(islice(case.batches(), min(plan.free_steps, case.steps)))
    found = []
    for number, seed in enumerate(request["seeds"], 1):
        found.append(losses_of(session, case, batches, seed))
        tell(f"{backend} runs free: {number} of {len(request['seeds'])}")
    session.close()
    return [[repr(loss) for loss in losses] for losses in found]


if __name__ == "__main__":
    serve(work)
