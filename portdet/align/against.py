"""A run against published or earlier curves: inside their spread at every epoch, outside from which on, or unknown."""

from __future__ import annotations

from collections.abc import Iterable

from portdet.config import Config
from portdet.errors import PortdetError
from portdet.evaluate.coco_map import NAMES
from portdet.report.align_reference import Reference, beside, values_of
from portdet.report.align_run import AlignRun, BackendRun, Check


def rule_text(reference: Reference) -> str:
    """The rule in a sentence."""
    if not reference.spread:
        return (
            f"{reference.title} gives no run-to-run spread, so its AP is shown beside the runs' and nothing is decided."
        )
    return (
        f"passed if the {' and the '.join(judged(reference))} of every run (what it has of them) lie, at every epoch "
        f"that it and {reference.title} have, between the lowest and the highest curve there, widened by the spread "
        "that is stated with them, up to their last epoch: such a run of theirs could have given this curve. Undecided "
        "where 0 lies between them at all these epochs, as what finds nothing would pass."
    )


def judged(reference: Reference) -> list[str]:
    """The metrics that have a spread; without one AP, or what else the curves have, for showing."""
    return list(reference.spread) or [next(name for name in ("AP", *NAMES) if reference.span(name))]


def validated_epochs(config: Config) -> list[int]:
    """The epochs, from 1, after which a run of `config` is scored."""
    last, start, every = config.train.epochs, config.eval.start, config.eval.every
    return [e for e in range(start, last + 1) if (e - start) % every == 0 or e == last]


def meets(reference: Reference, epochs: Iterable[int]) -> None:
    """Raise unless a run that is validated at `epochs` can be compared: to be asked before it is trained."""
    epochs = sorted(epochs)
    for metric in judged(reference):
        known = reference.allowed(metric) or reference.span(metric)
        if not set(known) & set(epochs):
            raise _apart(metric, reference, sorted(known), epochs, "the run")


def judge_against(run: AlignRun) -> None:
    """Compare every backend's curve with `run.reference`: adds a check each to `checks`, sets verdict and `passed`.

    Raises PortdetError where a run and the curves have no epoch or no metric in common.
    """
    reference = run.reference
    if reference is None:
        return
    checks = [_check(backend, reference, metric) for backend in run.backends for metric in _shared(backend, reference)]
    run.checks += checks
    run.rule_text = " ".join(filter(None, [run.rule_text, f"Against curves: {rule_text(reference)}"]))
    states = [check.passed for check in run.checks]
    run.passed = False if False in states else None if None in states else True
    run.verdict = " ".join(filter(None, [run.verdict, _sentence(checks, reference)]))


def _sentence(checks: list[Check], reference: Reference) -> str:
    for state, word in ((False, "Outside of"), (None, "Undecided against")):
        if first := next((check for check in checks if check.passed is state), None):
            return f"{word} {reference.title}: {first.name.partition(' against ')[0]}: {first.detail}."
    return f"Inside the spread of {reference.title}: {checks[0].detail}."


def _check(backend: BackendRun, reference: Reference, metric: str) -> Check:
    name = f"{backend.name}, {metric} against {reference.title}"
    run = values_of(backend.epochs, metric)
    allowed = reference.allowed(metric)
    common = [epoch for epoch in sorted(run) if epoch in (allowed or reference.span(metric))]
    if not common:
        raise _apart(metric, reference, sorted(allowed or reference.span(metric)), sorted(run), backend.name)
    if not allowed:
        epoch, far = _furthest({e: beside(run[e], reference.span(metric)[e]) for e in common})
        words = f"{abs(far):.3f} outside of its curves at most, at epoch {epoch}" if far else "between its curves"
        return Check(name, None, f"{words}; no run-to-run spread is stated (--spread gives one)")
    outside = {e: far for e in common if (far := beside(run[e], allowed[e]))}
    if outside:
        return Check(name, False, _outside(run, allowed, outside, len(common)))
    last = max(allowed)
    if common[-1] < last:
        return Check(name, None, f"inside up to epoch {common[-1]}, but the curves go on to epoch {last}")
    if all(not beside(0.0, allowed[epoch]) for epoch in common):
        return Check(name, None, f"inside at all {len(common)} common epochs, but so is what finds nothing")
    ends = allowed[last]
    figures = f"{run[last]:.3f} at epoch {last}, allowed {ends[0]:.3f} to {ends[1]:.3f}"
    return Check(name, True, f"inside at all {len(common)} common epochs ({figures})")


def _shared(backend: BackendRun, reference: Reference) -> list[str]:
    """The metrics to judge by that the run has."""
    wanted = judged(reference)
    if shared := [metric for metric in wanted if values_of(backend.epochs, metric)]:
        return shared
    has = [metric for metric in NAMES if values_of(backend.epochs, metric)]
    fix = f"it has {', '.join(has)}" if has else "validate it (eval.every, eval.start)"
    raise PortdetError(f"{backend.name} has no {' or '.join(wanted)}, which {reference.title} is judged by", fix=fix)


def _outside(
    run: dict[int, float], allowed: dict[int, tuple[float, float]], outside: dict[int, float], common: int
) -> str:
    first = min(outside)
    low, high = allowed[first]
    side = "above" if outside[first] > 0 else "below"
    words = f"{run[first]:.3f} at epoch {first}, {abs(outside[first]):.3f} {side} the allowed {low:.3f} to {high:.3f}"
    worst, far = _furthest(outside)
    if len(outside) > 1:
        words += f"; outside at {len(outside)} of {common} epochs"
        words += f", furthest at epoch {worst} by {abs(far):.3f}" if worst != first else ", furthest there"
    return words


def _furthest(apart: dict[int, float]) -> tuple[int, float]:
    epoch = max(apart, key=lambda e: abs(apart[e]))
    return epoch, apart[epoch]


def _apart(metric: str, reference: Reference, known: list[int], epochs: list[int], who: str) -> PortdetError:
    def few(values: list[int]) -> str:
        listed = [str(value) for value in values]
        return ", ".join(listed if len(listed) < 9 else [*listed[:3], "...", listed[-1]]) or "none"

    return PortdetError(
        f"no epoch in common: {reference.title} has {metric} at epochs {few(known)}, {who} at {few(epochs)}",
        fix="validate at one of those epochs (eval.every, eval.start, train.epochs)",
    )
