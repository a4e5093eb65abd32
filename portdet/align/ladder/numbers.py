"""The levels weights, forward, loss, grad, step and steps: one step, teacher-forced with the reference's states.

The parent's side: it has the reference make its states and dumps, then the candidate compare itself; what the
candidate finds different is looked at again with other batches, which the reference makes when they are asked for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from portdet.align.compare import Finding, Result, false_alarms
from portdet.align.compare.judge import DIFFERENT
from portdet.align.ladder.looks import INEXACT_SUM, Look
from portdet.align.ladder.outcome import FALSE_ALARMS, Outcome, Row
from portdet.align.ladder.plan import Plan
from portdet.align.ladder.shown import Say, run_shown
from portdet.align.probe import LEVELS

NUMBERS = (*LEVELS, "steps")
_AT = {  # levels that rules belong to; those of a whole training are steps'
    "weights": "weights", "device": "weights", "mode": "weights", "dtype": "weights", "batch": "forward",
    "slots": "step", "lr": "step", "loss_scale": "step", "ema_decay": "step", "steps": "steps",
}  # fmt: skip


def outcomes(plan: Plan, backend: str, say: Say) -> dict[str, Outcome]:
    """By level, for those of NUMBERS that the plan asks for; where a candidate really ran is a fact of the first.

    Of the reference itself: its false alarms on healthy runs, as an outcome of the highest of these levels. Raises
    PortdetError where a process failed.
    """
    complete(plan, (), say)
    if backend == plan.reference:
        return _reference(plan, say)
    request = {"plan": plan.plain(), "backend": backend}
    answer = run_shown("portdet.align.ladder.candidate", request, say, plan.place / "logs" / f"{backend}.log")
    made = _by_level(plan, backend, _rows(answer), answer["seconds"])
    next(iter(made.values())).facts = answer["facts"]
    return made


def complete(plan: Plan, looks: Sequence[Look], say: Say) -> None:
    """Have the reference make these looks (none: its states and the points' own) where it has not yet."""
    request = {"work": "prepare", "looks": [[look.point, look.batch] for look in looks]}
    if lacking := _reference_child(plan, request, say):
        _reference_child(plan, {"work": "threads", "looks": lacking}, say)


def _reference(plan: Plan, say: Say) -> dict[str, Outcome]:
    """Held-out healthy runs: each is compared like a candidate."""
    start = time.perf_counter()
    answer = _reference_child(plan, {"work": "held-out"}, say)
    rows = _rows(answer)
    level = [level for level in NUMBERS if level in plan.levels][-1]
    text = false_alarms(sum(row.guilty for row in rows), len(rows))
    facts = {FALSE_ALARMS: text, "kinks": f"in {answer['kinks']} of them a tensor was apart on one batch alone"}
    made = Outcome.of(level, plan.reference, rows, f"{plan.reference} against itself: {text}.", facts=facts)
    made.seconds = time.perf_counter() - start
    return {level: made}


def _reference_child(plan: Plan, request: Mapping[str, Any], say: Say) -> Any:
    name = f"{request['work']}{'-looks' if request.get('looks') else ''}"
    log = plan.place / "logs" / f"{plan.reference}-{name}.log"
    return run_shown("portdet.align.ladder.reference", {"plan": plan.plain(), **request}, say, log)


def _rows(answer: Mapping[str, Any]) -> list[Row]:
    return [Row(**row) for row in answer["rows"]]


def _by_level(plan: Plan, backend: str, rows: Sequence[Row], seconds: Mapping[str, float]) -> dict[str, Outcome]:
    asked = [level for level in NUMBERS if level in plan.levels]
    found = {level: [row for row in rows if home(row, asked) == level] for level in asked}
    first = [level for level in asked if level != "steps"]
    spent = {level: seconds.get("0", 0.0) / max(len(first), 1) for level in first}
    if "steps" in asked:
        spent["steps"] = sum(seconds.values()) - sum(spent.values())
    made = {}
    for level in asked:
        text = words(found[level], plan.self_runs)
        made[level] = Outcome.of(level, backend, found[level], text, seconds=spent[level])
        apart = inexact(found[level])
        made[level].ratio = max(
            (row.ratio for row in found[level] if not row.guilty and row.status != "kink" and row not in apart),
            default=0.0,
        )
    return made


def inexact(rows: Sequence[Row]) -> list[Row]:
    """Batch statistics that one side sums less exactly: beyond what is different elsewhere, and allowed."""
    return [row for row in rows if row.status == "doubtful" and row.ratio > DIFFERENT]


def home(row: Row, asked: Sequence[str]) -> str:
    """The level that a row counts for: its own at step 0, `steps` later; where that is not asked for, the next that is,
    or the last."""
    kind, _, name = row.name.partition("/")
    own = _AT[name] if kind == "rule" else kind
    if row.step > 0 or (row.step < 0 and own == "step" and name != "slots"):
        own = "steps"
    later = [level for level in asked if NUMBERS.index(level) >= NUMBERS.index(own)]
    return later[0] if later else asked[-1]


def words(rows: Sequence[Row], self_runs: int) -> str:
    """The finding of one level: the first guilty row, or the largest ratio, and how many kinks there were."""
    guilty = next((row for row in rows if row.guilty), None)
    if guilty and guilty.name.startswith("rule/"):
        return f"Different: {guilty.name.removeprefix('rule/')} {guilty.words}{_where(guilty)}."
    kinks = sum(row.status == "kink" for row in rows)
    allowed = inexact(rows)
    names = {field.name for field in fields(Finding)}
    findings = [
        Finding(**{key: value for key, value in vars(row).items() if key in names})
        for row in rows
        if row.status != "kink" and not row.name.startswith("rule/") and row not in allowed
    ]
    if not findings:
        return f"The same: all {len(rows)} rules hold." if rows else "Nothing was looked at."
    text = Result(findings, self_runs).words()
    if guilty:
        text = f"{text[:9]}{_where(guilty)}{text[9:]}"
    number = "1 tensor was" if kinks == 1 else f"{kinks} tensors were"
    text += f" {number} apart on one batch alone (kinks)." if kinks else ""
    if allowed:
        most = max(allowed, key=lambda row: row.ratio)
        text += (
            f" {len(allowed)} batch statistics are summed less exactly than the reference sums them (at most "
            f"{most.max_rel:.1e} apart, {most.ratio:.2g} times the self-noise, in {most.name}); "
            f"{INEXACT_SUM:.1e} is allowed."
        )
    return text


def _where(row: Row) -> str:
    return f" at step {row.step}" if row.step > 0 else ""
