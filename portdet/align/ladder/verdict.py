"""The finding of a whole ladder in a sentence, and its exit code: the lowest level that fails names the cause."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from portdet.align.ladder.numbers import inexact
from portdet.align.ladder.outcome import LEVELS, Outcome
from portdet.report.ladder_data import LadderReport
from portdet.report.ladder_words import place

EQUIVALENT, DIFFERENT, INCONCLUSIVE, COULD_NOT_RUN = range(4)


def judged(levels: Sequence[str], outcomes: Sequence[Outcome], reference: str) -> tuple[bool | None, str]:
    """Whether the backends are equivalent (None: undecided), and the sentence that says so.

    A backend whose process died leaves it undecided, however well the rest agrees. Planted faults that are missed, and
    alarms on the reference against itself, say nothing against a backend: they leave in doubt what the levels found.
    """
    ranked = sorted(outcomes, key=lambda o: LEVELS.index(o.level))
    different = [o for o in ranked if o.passed is False and not _of_the_suite(o, reference)]
    crashed = [o for o in ranked if o.crashed]
    missing = [level for level in levels if level not in {o.level for o in outcomes}]
    unsure = [o for o in ranked if not o.crashed and not o.passed and o not in different]
    words = []
    if different:
        words.append("Different. " + " ".join(_first(backend, different, ranked) for backend in _backends(different)))
    elif crashed or missing or unsure or not outcomes:
        words.append("Inconclusive.")
        agreed = sum(o.passed is True for o in ranked)
        words += [f"What was compared agrees ({agreed} of {len(ranked)})."] if agreed else []
    else:
        words.append(_equivalent(ranked))
    words += [_could_not_run(crashed)] if crashed else []
    words += [f"Not reached: {', '.join(missing)}."] if missing else []
    words += [f"{_where(o)} could not decide: {sentence(o.words)}" for o in unsure]
    return (False if different else None if crashed or missing or unsure or not outcomes else True), " ".join(words)


def exit_code(report: LadderReport) -> int:
    """0 equivalent, 1 different, 2 inconclusive, 3 where a process died or a level was not reached."""
    if any(o.crashed for o in report.outcomes) or set(report.levels) - {o.level for o in report.outcomes}:
        return COULD_NOT_RUN
    return {True: EQUIVALENT, False: DIFFERENT, None: INCONCLUSIVE}[report.passed]


def sentence(words: str) -> str:
    """`words` with a full stop."""
    return words if words.endswith((".", "!", "?")) else f"{words}."


def _equivalent(ranked: Sequence[Outcome]) -> str:
    checked = sum(o.checked for o in ranked)
    ratio = max((o.ratio for o in ranked), default=0.0)
    levels = ", ".join(dict.fromkeys(o.level for o in ranked))
    noise = f"; largest cross/self ratio {ratio:.2g}" if ratio else ""
    sums = sum(len(inexact(o.rows)) for o in ranked)
    noise += f", {sums} less exact batch statistics apart" if sums else ""
    names = ", ".join(_backends(ranked))
    return f"Equivalent. {names}: nothing differs beyond noise in {checked:,} checks ({levels}{noise})."


def _first(backend: str, different: Sequence[Outcome], ranked: Sequence[Outcome]) -> str:
    """The lowest level at which a backend differs: where, how far, and what below it agrees."""
    lowest = next(o for o in different if o.backend == backend)
    row = next((row for row in lowest.rows if row.guilty and row.name == lowest.first), None)
    at = f" at training step {row.step}" if row and row.step >= 0 else ""
    what = f": {place(lowest.first)}{at} {row.words if row else ''}".rstrip() if lowest.first else f": {lowest.words}"
    below = [o.level for o in ranked if o.backend == backend and o.passed and _below(o, lowest)]
    above = [o.level for o in different if o.backend == backend and o is not lowest]
    words = [sentence(f"{_where(lowest)} is the lowest that differs{what}")]
    words += [f"Below it {', '.join(below)} agree{'s' if len(below) == 1 else ''}."] if below else []
    words += [f"Above it {', '.join(above)} differ{'s' if len(above) == 1 else ''} too."] if above else []
    return " ".join(words)


def _could_not_run(crashed: Sequence[Outcome]) -> str:
    parts = [
        f"{backend} ({', '.join(o.level for o in of)})"
        for backend, of in groupby(sorted(crashed, key=lambda o: o.backend), key=lambda o: o.backend)
    ]
    return f"Could not run to the end: {'; '.join(parts)}."


def _of_the_suite(outcome: Outcome, reference: str) -> bool:
    """Whether it is about the suite itself: planted faults, or the reference against itself."""
    return outcome.level == "power" or (outcome.backend == reference and outcome.level not in ("ops", "ranks"))


def _below(outcome: Outcome, other: Outcome) -> bool:
    return LEVELS.index(outcome.level) < LEVELS.index(other.level)


def _where(outcome: Outcome) -> str:
    return f"{outcome.backend}, level {outcome.level}"


def _backends(outcomes: Sequence[Outcome]) -> list[str]:
    return list(dict.fromkeys(o.backend for o in outcomes))
