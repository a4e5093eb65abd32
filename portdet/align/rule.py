"""What has to be exactly equal in paired trainings, and when backends count as aligned after one run each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from portdet.report.align_reference import values_of
from portdet.report.align_run import LAST, AlignRun, BackendRun, Check, final_score

FIRST_STEP = 1e-4
"""Largest relative difference of the first step's losses. Healthy backends show 1e-7 to 1e-5 (float32 sums in another
order); a wrong constant, padding or normalisation shows far above."""


@dataclass(frozen=True)
class Trace:
    """What is compared exactly between two runs: per step, and once."""

    learning_rates: Sequence[str]
    batches: Sequence[str]
    weights: str  # SHA-256 of the initial weights as the backend holds them
    first_losses: Mapping[str, float]
    decays: Sequence[str] = ()  # of the EMA; older runs lack them


def rule_text(margin: float) -> str:
    """The rule in a sentence."""
    return (
        "passed if every backend starts from the same weights (bit for bit), sees the same batches and learning rates "
        f"at every step, agrees on every loss of the first step within {FIRST_STEP:g} relative, and ends within "
        f"{margin:g} of the others in AP50 (mean of the last {LAST} validated epochs). Undecided where that cannot "
        f"tell a right port from a wrong one: fewer than {LAST} such epochs, or a first backend whose AP50 is not "
        "that much above its initial weights', as a model that learns nothing would pass. One run each shows that "
        "nothing is grossly different; it does not bound small differences."
    )


def judge(run: AlignRun, traces: Sequence[Trace], margin: float) -> None:
    """Fill `run.checks`, `passed` and `verdict`."""
    names = [backend.name for backend in run.backends]
    run.rule_text = rule_text(margin)
    run.checks = [*exact_checks(traces, names), _final(run, margin)]
    states = [check.passed for check in run.checks]
    run.passed = False if False in states else None if None in states else True
    if run.passed:
        finals = ", ".join(f"{backend.name} {final_score(backend):.3f}" for backend in run.backends)
        run.verdict = f"No difference beyond the stated bounds: final AP50 {finals}."
    else:
        first = run.checks[states.index(run.passed)]
        word = "Different" if run.passed is False else "Undecided"
        run.verdict = f"{word}: {first.name}: {first.detail}."


def exact_checks(traces: Sequence[Trace], names: Sequence[str]) -> list[Check]:
    """What paired runs share whatever the rounding; the first step's losses are the one with a tolerance."""
    first = traces[0]
    checks = [
        _same("initial weights", [t.weights for t in traces], names, "SHA-256 of every tensor as the backend holds it"),
        _same("learning rates", [t.learning_rates for t in traces], names, f"{len(first.learning_rates)} steps"),
        _same("batches", [t.batches for t in traces], names, f"hashes of {len(first.batches)} batches"),
        _first_step(traces),
    ]
    if any(trace.decays for trace in traces):
        checks.insert(2, _same("EMA decays", [t.decays for t in traces], names, f"{len(first.decays)} steps"))
    return checks


def blind(runs: Sequence[BackendRun], margin: float, start: float | None = 0.0) -> str:
    """Why final AP50s that agree within the margin show nothing, in words; '' where they show something.

    The first run is the reference: what learns nothing ends with the AP50 `start` of the initial weights (None:
    unknown), and must not pass beside it.
    """
    finals = [final_score(run) for run in runs]
    if all(map(math.isnan, finals)):
        return "no run has an AP50"
    if start is None:
        return "the AP50 of the initial weights is not known"
    if not finals[0] - start > margin:
        above = f"more than the margin {margin:g} above the {start:.3f} that the initial weights have"
        return (
            f"{runs[0].name}'s {finals[0]:.3f} is not {above if start else f'above the margin {margin:g}'}, so a model "
            "that learns nothing would pass, too: train longer, or set a smaller --margin"
        )
    epochs = min(len(values_of(run.epochs, "AP50")) for run in runs)
    return f"only {epochs} of the {LAST} validated epochs whose mean is judged" if epochs < LAST else ""


def _same(name: str, values: Sequence[object], names: Sequence[str], what: str) -> Check:
    for other, value in zip(names[1:], values[1:], strict=True):
        if value != values[0]:
            place = ""
            if isinstance(value, list) and isinstance(values[0], list):
                first = next((i for i, (a, b) in enumerate(zip(values[0], value, strict=False)) if a != b), None)
                place = f", first at step {first + 1}" if first is not None else ", one is longer"
            return Check(name, False, f"{other} differs from {names[0]}{place}")
    return Check(name, True, f"equal ({what})")


def _first_step(traces: Sequence[Trace]) -> Check:
    apart = [
        (abs(other.first_losses.get(name, math.nan) - value) / max(abs(value), 1e-12), name)
        for other in traces[1:]
        for name, value in traces[0].first_losses.items()
    ]
    worst, where = max(apart, key=lambda item: math.inf if math.isnan(item[0]) else item[0], default=(0.0, "-"))
    return Check("losses of the first step", worst <= FIRST_STEP, f"largest relative difference {worst:.1e} ({where})")


def _final(run: AlignRun, margin: float) -> Check:
    finals = [final_score(backend) for backend in run.backends]
    name, why = "final AP50", blind(run.backends, margin, run.start)
    if len(finals) == 1:
        return Check(name, None, f"{finals[0]:.3f}, and no other backend to compare it with")
    if lacking := [backend.name for backend, value in zip(run.backends, finals, strict=True) if math.isnan(value)]:
        return Check(name, None, why) if len(lacking) == len(finals) else Check(name, False, f"{lacking[0]} has none")
    apart = max(finals) - min(finals)
    detail = f"apart by {apart:.3f} at most; margin {margin:g}"
    if apart > margin:
        return Check(name, False, detail)
    return Check(name, None if why else True, f"{detail}; {why}" if why else detail)
