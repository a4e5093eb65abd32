"""Gates without a tolerance: what the host decides, and where a session says it really runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from portdet.align.compare import exact
from portdet.align.ladder.case import Case
from portdet.align.ladder.outcome import Row
from portdet.backends import load_backend
from portdet.session import Batch, Session, StepValues
from portdet.train.fingerprint import batch_hash, weights_hash

VALUES = ("lr", "loss_scale", "ema_decay")
CLOSE = 1e-12  # relative; the values are closed forms of the step in float64 on every machine
_EVERY, _SPREAD = 20_000, 20_000  # all of the first steps, and so many spread over the rest of a longer training
_KINDS = {"cuda": "gpu", "ascend": "npu"}


def about(case: Case, session: Session) -> dict[str, Any]:
    """One side of all gates, as plain data. The session must hold the initial weights."""
    settings, facts = case.config.train, session.facts()
    steps = looked_at_steps(case.steps)
    values = [case.values(step) for step in steps]
    default = load_backend(settings.backend).default_mode
    return {
        "weights": weights_hash(session.weights()),
        "device": [_kind(settings.device), _kind(facts.get("device", session.device))],
        "mode": [default if settings.mode == "default" else settings.mode, facts.get("mode", "")],
        "dtype": facts.get("dtype", ""),
        "slots": [name for name in session.state() if not name.startswith("weights/")],
        "total": case.steps,
        "steps": steps,
        **{name: [getattr(value, name) for value in values] for name in VALUES},
        "facts": facts,
    }


def looked_at_steps(total: int) -> list[int]:
    """All steps, of very long trainings the first ones and some of the rest."""
    if total <= _EVERY + _SPREAD:
        return list(range(total))
    return [*range(_EVERY), *np.linspace(_EVERY, total - 1, _SPREAD).astype(int).tolist()]


def once(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[Row]:
    """Rows of what holds for a whole run; ours is the reference's `about`."""
    rows = [_rule("weights", "" if ours["weights"] == theirs["weights"] else
                  f"starts from {theirs['weights'][:12]} (SHA-256) instead of {ours['weights'][:12]}")]  # fmt: skip
    for name in ("device", "mode"):
        asked, used = theirs[name]
        rows.append(_rule(name, "" if asked == used else f"runs on {used or 'what it does not tell'}, not on {asked}"))
    dtypes = [side["dtype"] or "what it does not tell" for side in (ours, theirs)]
    rows.append(_rule("dtype", "" if dtypes[0] == dtypes[1] else f"computes in {dtypes[1]} instead of {dtypes[0]}"))
    wrong = exact.names(ours["slots"], theirs["slots"])
    rows.append(_rule("slots", "".join(f"of the optimiser: '{name}' {what}" for name, what in [*wrong.items()][:1])))
    if ours["total"] != theirs["total"]:
        return [*rows, _rule("steps", f"has {theirs['total']} steps instead of {ours['total']}")]
    return [*rows, *(_rule(name, _sequence(ours["steps"], ours[name], theirs[name])) for name in VALUES)]


def at(point: int, ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[Row]:
    """Rows of what enters one look; both sides are what `entered` gave."""
    rows = [_rule("batch", "" if ours["batch"] == theirs["batch"] else
                  f"sees batch {theirs['batch']} instead of {ours['batch']}", point)]  # fmt: skip
    for name in VALUES:
        want, got = float(ours[name]), float(theirs[name])
        rows.append(_rule(name, "" if _close(got, want) else f"is {got:.9g} instead of {want:.9g}", point))
    return rows


def entered(batch: Batch, values: StepValues) -> dict[str, str]:
    """What goes into a step besides the state, as a dump's metadata."""
    return {"batch": batch_hash(batch), **{name: repr(float(getattr(values, name))) for name in VALUES}}


def _sequence(steps: Sequence[int], ours: Sequence[float], theirs: Sequence[float]) -> str:
    apart = [i for i, pair in enumerate(zip(theirs, ours, strict=True)) if not _close(*pair)]
    if not apart:
        return ""
    first = apart[0]
    return (
        f"is {theirs[first]:.9g} instead of {ours[first]:.9g} at step {steps[first]}, and differs at {len(apart)} of "
        f"{len(steps)} steps"
    )


def _close(got: float, want: float) -> bool:
    return abs(got - want) <= CLOSE * abs(want)


def _kind(device: str) -> str:
    """'cuda:1' -> 'gpu': the frameworks have names of their own."""
    name = device.partition(":")[0].lower()
    return _KINDS.get(name, name)


def _rule(name: str, words: str, step: int = -1) -> Row:
    return Row(f"rule/{name}", "broken" if words else "same", words, step)
