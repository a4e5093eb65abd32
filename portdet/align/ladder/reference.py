"""The reference's part of the ladder, in a process of its own: `python -m portdet.align.ladder.reference`.

It trains by itself to the points, keeps its whole state at each, takes one step from there (a dump), and finds what
one-ulp changes do to every tensor (the noise). Of the K self-runs a quarter takes another number of threads, in one
more process, because a framework's number of threads is that of its process. What is there already is not made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from portdet.align.compare import Dump, DumpWriter, Envelope
from portdet.align.compare.distance import SMALL, Distance, distance, distances
from portdet.align.compare.envelope import Noise
from portdet.align.ladder import rules
from portdet.align.ladder.case import Case, has_float64, open_case, planned
from portdet.align.ladder.looks import (
    HELD_OUT,
    RUNS,
    SMALL_RUN,
    Look,
    Shelf,
    asked_points,
    judged,
    levels_at,
    observe,
)
from portdet.align.ladder.numbers import complete
from portdet.align.ladder.outcome import Row
from portdet.align.ladder.plan import Plan
from portdet.align.ladder.shown import tell
from portdet.files import write_text
from portdet.processes.child import serve
from portdet.processes.cores import cores
from portdet.session import Array, Session

IN_FLOAT64 = ("forward", "loss", "grad")


def other_runs(plan: Plan) -> int:
    """Self-runs with another number of threads."""
    return plan.self_runs // 4


def other_threads(case: Case) -> int:
    """1, or 2 where 1 is what the case takes."""
    return 1 if (case.config.train.threads or cores()) > 1 else 2


def prepare(plan: Plan, looks: Sequence[Look]) -> list[list[int]]:
    """About, states, and of the looks (empty: the points' own) dumps and the noise of the runs with the usual threads.

    Returns the looks that still lack the runs with other threads.
    """
    case, shelf = planned(plan, plan.reference), Shelf.of(plan)
    points = asked_points(plan, case)
    looks = looks or [Look(point) for point in points]
    session = open_case(case, shelf.folder / "source")
    if not shelf.about.is_file():
        write_text(shelf.about, json.dumps(rules.about(case, session), indent=1) + "\n")
    if missing := [point for point in points if not shelf.state(point).is_file()]:
        _train(case, session, missing, shelf)
    lacking = []
    for look in looks:
        levels = levels_at(plan, look.point)
        if shelf.has(look, levels):
            continue
        if not shelf.has_dump(look, levels):
            shelf.noise(look).unlink(missing_ok=True)
            _partial(shelf, look).unlink(missing_ok=True)
            _dump(case, session, look, shelf, levels)
        others = other_runs(plan)
        path = _partial(shelf, look) if others else shelf.noise(look)
        if not path.is_file():
            _self_runs(case, session, look, shelf, levels, range(others, plan.self_runs)).save(path)
        if others:
            lacking.append([look.point, look.batch])
    session.close()
    if looks[0] == Look(0) and has_float64(plan.reference) and shelf.dump(looks[0]).stat().st_size < SMALL_RUN:
        _truth(case, shelf, [level for level in IN_FLOAT64 if level in levels_at(plan, 0)])
    return lacking


def add_threads(plan: Plan, looks: Sequence[Look]) -> None:
    """The runs with another number of threads, which completes the noise."""
    case, shelf = planned(plan, plan.reference), Shelf.of(plan)
    session = open_case(case, shelf.folder / "source", threads=other_threads(case))
    for look in looks:
        found = Envelope.load(_partial(shelf, look))
        more = _self_runs(case, session, look, shelf, levels_at(plan, look.point), range(other_runs(plan)))
        for name, noise in more.noise.items():
            found.noise[name].max_rel += noise.max_rel
            found.noise[name].rel_l2 += noise.rel_l2
        found.runs += more.runs
        found.save(shelf.noise(look))
        _partial(shelf, look).unlink()
    session.close()


def held_out(plan: Plan) -> dict[str, Any]:
    """Healthy comparisons, each as a candidate is compared: a row each, and in how many of them there were kinks."""
    case = planned(plan, plan.reference)
    session = open_case(case, Shelf.of(plan).folder / "source")
    rows, kinks = [], 0
    for point, number in spread(plan, case):
        seed = HELD_OUT + RUNS * number
        found = judged(plan, case, session, point, first_seed=seed, make=partial(complete, plan, say=tell))
        rows.append(_held_out_row(point, number, found))
        kinks += any(row.status == "kink" for row in found)
        tell(f"healthy run {number + 1} at step {point}: {rows[-1].status}, largest ratio {rows[-1].ratio:.2g}")
    session.close()
    return {"rows": [asdict(row) for row in rows], "kinks": kinks}


def spread(plan: Plan, case: Case) -> list[tuple[int, int]]:
    """(point, number) of all held-out runs: as equally over the points as it goes, at least one if any is asked."""
    points = asked_points(plan, case)
    return [(point, n) for i, point in enumerate(points) for n in range(len(range(i, plan.held_out, len(points))))]


def _held_out_row(point: int, number: int, found: Sequence[Row]) -> Row:
    guilty = next((row for row in found if row.guilty), None)
    worst = max((row for row in found if row.status != "kink"), key=lambda row: row.ratio)
    words = f"{guilty.name} {guilty.words}" if guilty else f"the largest ratio is that of {worst.name}"
    status = "different" if guilty else "noise"
    return Row(f"held-out/{point}/{number}", status, words, point, worst.ratio, tolerance=worst.tolerance)


def _train(case: Case, session: Session, points: Sequence[int], shelf: Shelf) -> None:
    """From the initial weights to the last of the points; whole states on the way."""
    tell(f"the reference trains to step {max(points)}")
    session.load_weights(case.initial)
    for step, batch in enumerate(case.batches()):
        if step in points:
            with DumpWriter(shelf.state(step)) as state:
                for name, array in session.state().items():
                    state.put(name, array)
        if step == max(points):
            return
        session.train_step(batch, case.values(step))


def _dump(case: Case, session: Session, look: Look, shelf: Shelf, levels: Sequence[str]) -> None:
    entered = rules.entered(case.batch(look.step(case)), case.values(look.point))
    with DumpWriter(shelf.dump(look), {"levels": " ".join(levels), **entered}) as dump:
        observe(session, case, look, dict(Dump(shelf.state(look.point))), dump.put, levels)


def _truth(case: Case, shelf: Shelf, levels: Sequence[str]) -> None:
    """The first point in float64: what the errors of both sides are measured against."""
    look = Look(0)
    path = shelf.truth(look)
    if not levels or (path.is_file() and set(levels) <= set(Dump(path).about.get("levels", "").split())):
        return
    session = open_case(case, shelf.folder / "float64", precision="float64")
    with DumpWriter(path, {"levels": " ".join(levels)}) as dump:
        observe(session, case, look, dict(Dump(shelf.state(0))), dump.put, levels)
    session.close()


def _self_runs(
    case: Case, session: Session, look: Look, shelf: Shelf, levels: Sequence[str], seeds: Sequence[int]
) -> Envelope:
    """Noise of the runs of these seeds; a run's tensors are measured as they come, and dropped."""
    where = f" with batch {look.step(case)}" if look.batch else ""
    tell(f"{len(seeds)} runs of the reference against itself at step {look.point}{where}")
    base, state, envelope = shelf.opened(look), dict(Dump(shelf.state(look.point))), Envelope()
    for seed in seeds:
        run = Measured(base)
        observe(session, case, look, state, run.put, levels, seed=seed)
        for name, apart in run.distances():
            noise = envelope.noise.setdefault(name, Noise())
            noise.max_rel.append(apart.max_rel)
            noise.rel_l2.append(apart.rel_l2)
        envelope.runs += 1
    return envelope


class Measured:
    """A run of which only distances from the base are kept; small tensors wait, to be measured together."""

    def __init__(self, base: Dump) -> None:
        self.base, self.found = base, dict[str, Distance]()
        self.waiting: dict[str, tuple[Array, Array]] = {}

    def put(self, name: str, array: Array) -> None:
        if array.size > SMALL:
            self.found[name] = distance(array, self.base[name])
        else:
            self.waiting[name] = array, self.base[name]

    def distances(self) -> list[tuple[str, Distance]]:
        small = zip(self.waiting, distances(list(self.waiting.values())), strict=True)
        return [*self.found.items(), *small]


def _partial(shelf: Shelf, look: Look) -> Path:
    """Noise that lacks the runs with other threads."""
    return shelf.folder / f"noise{look}.part.json"


def work(request: Any) -> Any:
    plan = Plan.of(request["plan"])
    looks = [Look(*pair) for pair in request.get("looks", [])]
    steps: dict[str, Callable[[], Any]] = {
        "prepare": lambda: prepare(plan, looks),
        "threads": lambda: add_threads(plan, looks),
        "held-out": lambda: held_out(plan),
    }
    return steps[request["work"]]()


if __name__ == "__main__":
    serve(work)
