"""The train step and its state: what a session does with its own gradients, by closed forms in numpy, float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from portdet.backends import open_session
from portdet.conformance import state
from portdet.conformance.fixtures import fixture, two_groups
from portdet.conformance.models import all_trained
from portdet.conformance.rows import Row, holds, near, same_bits
from portdet.errors import PortdetError
from portdet.reference.distance import distance
from portdet.session import Arrays, Options, Recipe, Session, StepValues
from portdet.state import BUFFERS

BOUND = 2e-6  # of a tensor's largest value: a few float32 operations
CHANGE = 1e-4  # of its largest change: the gradients of two passes over one batch may differ in the last bits
MODEL = "yolov3"


@dataclass(frozen=True)
class Case:
    """A recipe, and the values of its two steps."""

    recipe: Recipe
    values: tuple[StepValues, StepValues]


def _recipe() -> Recipe:
    return Recipe(two_groups(fixture(MODEL)[0], 0.5, 2.0), momentum=0.9)


def cases() -> dict[str, Case]:
    """What is tried, by name. Loss scales are powers of two, exact in float32."""
    base = _recipe()
    plain = StepValues(1e-4), StepValues(2e-4)
    frozen = tuple(replace(group, names=group.names[4:]) for group in base.groups)
    return {
        "momentum, decay, rate by group": Case(base, plain),
        "nesterov": Case(replace(base, nesterov=True), plain),
        "clipped norm": Case(replace(base, clip_norm=10.0), plain),
        "clipped norm of each group": Case(replace(base, clip_norm=10.0, clip_groups=True), plain),
        "norm below the clip": Case(replace(base, clip_norm=1e6), plain),
        "loss scale": Case(base, (StepValues(1e-4, 1024.0), StepValues(2e-4, 512.0))),
        "loss scale and clip": Case(replace(base, clip_norm=10.0), (StepValues(1e-4, 1024.0), StepValues(2e-4, 512.0))),
        "EMA": Case(replace(base, ema=True), (StepValues(1e-4, 1.0, 0.5), StepValues(2e-4, 1.0, 0.9))),
        "EMA from zero": Case(
            replace(base, ema=True, ema_zero_start=True), (StepValues(1e-4, 1.0, 0.1), StepValues(2e-4, 1.0, 0.5))
        ),
        "frozen weights": Case(replace(base, groups=frozen), plain),
    }


Opener = Callable[[str, Recipe], Session]


def check(backend: str, options: Options, folder: Path) -> list[Row]:
    """Rows for every case, for overflow, for the state, and for what has to be refused."""
    mode = options.mode
    detector, weights, _ = fixture(MODEL)

    def begun(name: str, recipe: Recipe) -> Session:
        return open_session(detector, backend, recipe, options, folder / name.replace(" ", "_").replace(",", ""))

    def opened(name: str, recipe: Recipe) -> Session:
        session = begun(name, recipe)
        session.load_weights(weights)
        return session

    tries: dict[str, Callable[[], Iterator[Row]]] = {
        name: lambda name=name, case=case: _steps(name, case, opened, mode)  # type: ignore[misc]
        for name, case in cases().items()
    }
    tries["overflow"] = lambda: _overflow(opened, mode)
    tries["state"] = lambda: state.check(begun, mode)
    tries["averaged weights"] = lambda: _averaged(opened, mode)
    tries["refusals"] = lambda: _refusals(opened, backend, options, folder)
    rows: list[Row] = []
    for name, attempt in tries.items():
        try:
            rows += attempt()
        except Exception as error:
            rows.append(Row("steps", name, mode, "failed", f"{type(error).__name__}: {error}"))
    return rows


def _steps(name: str, case: Case, opened: Opener, mode: str) -> Iterator[Row]:
    """Two steps of a session against the closed form on its own gradients."""
    _, _, batch = fixture(MODEL)
    session = opened(name, case.recipe)
    for number, values in enumerate(case.values, start=1):
        before = session.state()
        _, grads = session.losses_and_gradients(batch)
        yield same_bits("steps", f"{name}: gradients change nothing, step {number}", mode, session.state(), before)
        session.train_step(batch, values)
        after = session.state()
        want = step(case.recipe, values, before, grads, after)
        yield holds("steps", f"{name}: names of the state, step {number}", mode, set(after) == set(want), "differ")
        for part in ("weights", "momentum", "ema"):
            yield from _part(f"{name}: {part}, step {number}", part, mode, before, after, want)
    session.close()


def _part(name: str, part: str, mode: str, before: Arrays, after: Arrays, want: Arrays) -> Iterator[Row]:
    """The tensor of a part of the state that is furthest off, beside its size and beside its change."""
    keys = [key for key in want if key.startswith(f"{part}/")]
    if not keys:
        return
    rows = []
    for key in keys:
        moved = np.abs(want[key] - before[key]).max() / max(float(np.abs(want[key]).max()), 1e-30)
        bound = max(BOUND, CHANGE * float(moved))
        rows.append((near("steps", name, mode, after[key], want[key], bound, least=1e-3), key))
    failed = [replace(row, detail=f"{key}: {row.detail}") for row, key in rows if not row.good]
    yield failed[0] if failed else rows[0][0]


def step(recipe: Recipe, values: StepValues, before: Arrays, grads: Arrays, after: Arrays) -> Arrays:
    """The state after a step, in float64: clip, v = m v + g + decay w, w -= lr v (nesterov: lr (g + decay w + m v)).

    Batch statistics are taken from `after`: the models' rows hold them.
    """
    factor = dict.fromkeys(grads, 1.0)
    for names in recipe.clipped:
        norm = np.sqrt(sum(float((grads[name].astype(np.float64) ** 2).sum()) for name in names))
        factor |= dict.fromkeys(names, min(1.0, recipe.clip_norm / (norm + 1e-6)))
    out: Arrays = {key: array for key, array in after.items() if key.startswith("weights/")}
    settings = {name: group for group in recipe.groups for name in group.names}
    for name in [key.removeprefix("weights/") for key in out]:
        if name not in settings:
            if f"momentum/{name}" in after or not name.endswith(BUFFERS):
                out[f"weights/{name}"] = before[f"weights/{name}"]
            continue
        group = settings[name]
        weight = before[f"weights/{name}"].astype(np.float64)
        slope = grads[name].astype(np.float64) * factor[name] + group.weight_decay * weight
        velocity = recipe.momentum * before[f"momentum/{name}"] + slope
        move = slope + recipe.momentum * velocity if recipe.nesterov else velocity
        out[f"momentum/{name}"] = velocity
        out[f"weights/{name}"] = weight - values.lr * group.lr_scale * move
    if recipe.ema:
        d = values.ema_decay
        averages = {
            name.replace("weights/", "ema/"): d * before[name.replace("weights/", "ema/")] + (1 - d) * array
            for name, array in out.items()
            if name.startswith("weights/")
        }
        out |= averages
    return out


def _overflow(opened: Opener, mode: str) -> Iterator[Row]:
    """A gradient that is not finite updates nothing, and says so."""
    _, _, batch = fixture(MODEL)
    session = opened("overflow", replace(_recipe(), dynamic_scale=True, ema=True))
    before = session.state()
    result = session.train_step(batch, StepValues(1e-4, 2.0**126, 0.5))
    after = session.state()
    yield holds("steps", "overflow is reported", mode, result.skipped, "StepResult.skipped is False")
    changed = [
        key for key, array in after.items() if array.tobytes() != before[key].tobytes() and not key.endswith(BUFFERS)
    ]
    yield holds("steps", "overflow changes nothing", mode, not changed, f"changed: {', '.join(changed[:3])}")
    result = session.train_step(batch, StepValues(1e-4, 1024.0, 0.5))
    yield holds("steps", "the step after an overflow is taken", mode, not result.skipped, "skipped too")
    session.close()


def _averaged(opened: Opener, mode: str) -> Iterator[Row]:
    """Within `ema_weights` the model predicts with its average over `correction`; after it, with what it had."""
    _, _, batch = fixture(MODEL)
    session = opened("averaged weights", replace(_recipe(), ema=True))
    session.train_step(batch, StepValues(1e-3, 1.0, 0.5))
    state = session.state()
    with session.ema_weights(1.25):
        inside, found = session.weights(), session.predict(batch.images)
    want = {name: state[f"ema/{name}"] / np.float32(1.25) for name in inside}
    worst = max(want, key=lambda name: distance(inside[name], want[name]))
    yield near("steps", "weights inside `ema_weights`", mode, inside[worst], want[worst], 1e-6)
    yield same_bits("steps", "weights after `ema_weights`", mode, session.state(), state)
    session.load_weights(inside)
    yield near("steps", "predictions inside `ema_weights`", mode, found, session.predict(batch.images), 1e-6)
    session.close()


def _refusals(opened: Opener, backend: str, options: Options, folder: Path) -> Iterator[Row]:
    """What has to be an error that a person can read."""
    detector, weights, _ = fixture(MODEL)
    first = next(iter(weights))
    session = opened("refusals", all_trained(detector))
    wrong = {
        "a missing weight": {name: array for name, array in weights.items() if name != first},
        "an unknown weight": {**weights, "nobody.weight": weights[first]},
        "a misshapen weight": {**weights, first: weights[first][:1]},
    }
    for name, arrays in wrong.items():
        yield _refused(f"refuses {name}", options.mode, lambda arrays=arrays: session.load_weights(arrays))  # type: ignore[misc]
    session.close()
    elsewhere = replace(options, device="nowhere:99")
    for name, chosen in (("an absent device", elsewhere), ("an unknown precision", replace(options, precision="int3"))):
        yield _refused(
            f"refuses {name}",
            options.mode,
            lambda chosen=chosen: open_session(detector, backend, all_trained(detector), chosen, folder / "no"),  # type: ignore[misc]
        )


def _refused(name: str, mode: str, attempt: Callable[[], object]) -> Row:
    try:
        attempt()
    except PortdetError as error:
        return Row("steps", name, mode, "passed", error.what)
    except Exception as error:
        return Row("steps", name, mode, "failed", f"{type(error).__name__} where a PortdetError should be: {error}")
    return Row("steps", name, mode, "failed", "nothing was raised")
