"""What has to be exactly equal in paired trainings, and when backends count as aligned after one run each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from portdet.report.align_run import AlignRun, Check

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
        f"{margin:g} of the others in AP50 (mean of the last three epochs). One run each shows that nothing is grossly "
        "different; it does not bound small differences."
    )


def judge(run: AlignRun, traces: Sequence[Trace], margin: float) -> None:
    """Fill `run.checks`, `passed` and `verdict`."""
    names = [backend.name for backend in run.backends]
    run.rule_text = rule_text(margin)
    run.checks = [*exact_checks(traces, names), _final(run, margin)]
    failed = [check for check in run.checks if not check.passed]
    run.passed = not failed
    if failed:
        run.verdict = f"Different: {failed[0].name}: {failed[0].detail}."
    else:
        finals = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, final_ap50(run), strict=True))
        run.verdict = f"No difference beyond the stated bounds: final AP50 {finals}."


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


def final_ap50(run: AlignRun) -> list[float]:
    """Mean AP50 of the last three validated epochs of each backend."""
    return [final_score(backend.epochs) for backend in run.backends]


def final_score(epochs: Sequence[Mapping[str, float]], metric: str = "AP50") -> float:
    """Mean over the last three validated epochs; NaN where there is none."""
    values = [row[metric] for row in epochs if row.get(metric, -1) >= 0][-3:]
    return sum(values) / len(values) if values else math.nan


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
    finals = final_ap50(run)
    apart = max(finals) - min(finals) if all(map(math.isfinite, finals)) else math.nan
    return Check("final AP50", apart <= margin, f"apart by {apart:.3f} at most; margin {margin:g}")
