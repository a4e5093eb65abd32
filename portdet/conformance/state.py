"""The state of a session: whole before anything is loaded, and a training that goes on from it in a new session, for
every kind of average with a static and a dynamic loss scale."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from portdet.conformance.fixtures import fixture, two_groups
from portdet.conformance.rows import Row, holds, same_bits
from portdet.session import Arrays, Recipe, Session, StepValues
from portdet.train.ema import Ema

MODEL = "yolov3"
AVERAGES: dict[str, tuple[Ema, ...]] = {
    "no average": (Ema("none"),),
    "average": (Ema("constant", 0.9), Ema("exponential", 0.9, 4.0)),
    "average from zero": (Ema("threshold", 0.9), Ema("threshold_exact", 0.9)),
}
"""Kinds that share a recipe, and so a session; the first of them meets a session that nothing was loaded into."""
SCALES = {"static": (1024.0, 1024.0, 1024.0, 1024.0), "dynamic": (2.0**126, 1024.0, 2.0**126, 512.0)}
"""The loss scale of each step; 2^126 overflows, and the step is skipped. The run is left after the second one."""

Beginner = Callable[[str, Recipe], Session]


def check(begun: Beginner, mode: str) -> Iterator[Row]:
    """begun: opens a session that nothing is loaded into."""
    detector, _, _ = fixture(MODEL)
    for scale in SCALES:
        for name, kinds in AVERAGES.items():
            settings = {"ema": kinds[0].active, "ema_zero_start": kinds[0].zero_start}
            recipe = Recipe(two_groups(detector, 0.5, 2.0), dynamic_scale=scale == "dynamic", **settings)
            title = f"{name}, {scale} scale"
            try:
                yield from _pair(title, scale, recipe, kinds, begun, mode)
            except Exception as error:
                yield Row("steps", f"state: {title}", mode, "failed", f"{type(error).__name__}: {error}")


def _pair(title: str, scale: str, recipe: Recipe, kinds: tuple[Ema, ...], begun: Beginner, mode: str) -> Iterator[Row]:
    first, new = begun(f"state {title}", recipe), begun(f"state {title} again", recipe)
    yield _whole(f"state: whole before anything is loaded, {title}", mode, new.state(), recipe)
    for kind in kinds:
        yield from _resumed(f"state: {kind.kind}, {scale} scale", SCALES[scale], recipe, kind, first, new, mode)
    copies = new.state()
    for array in new.state().values():
        array += 1
    yield same_bits("steps", f"state: copies, {title}", mode, new.state(), copies)
    first.close()
    new.close()


def _resumed(
    title: str, scales: tuple[float, ...], recipe: Recipe, kind: Ema, first: Session, new: Session, mode: str
) -> Iterator[Row]:
    """Four steps in `first`, and the last two of them in `new` from what the state was in between."""
    first.load_weights(fixture(MODEL)[1])
    begins = first.state()
    _run(first, kind, scales, 0, 2)
    middle = first.state()
    wanted = _run(first, kind, scales, 2, 4)
    end = first.state()
    # `portdet train --resume` compares the names before it loads
    other = sorted(new.state().keys() ^ middle.keys())
    yield holds("steps", f"{title}: names in a new session", mode, not other, f"differ, first {other[:1]}")
    for again in ("", " again"):
        new.load_state(middle)
        yield same_bits("steps", f"{title}: what was loaded{again}", mode, new.state(), middle)
        found = _run(new, kind, scales, 2, 4)
        yield same_bits("steps", f"{title}: the steps{again} in a new session", mode, new.state(), end)
        yield holds("steps", f"{title}: losses{again}", mode, found == wanted, f"{found} instead of {wanted}")
    parts = ("weights/", "momentum/", "ema/") if recipe.ema else ("weights/", "momentum/")
    still = [part for part in parts if not (_moves(begins, middle, part) and _moves(middle, end, part))]
    yield holds("steps", f"{title}: steps change all parts", mode, not still, f"{', '.join(still)} stood still")


def _run(session: Session, kind: Ema, scales: tuple[float, ...], start: int, end: int) -> list[object]:
    """Steps `start` to `end`; what each says. A skipped step is no update of the average."""
    _, _, batch = fixture(MODEL)
    said: list[object] = []
    for step in range(start, end):
        updates = sum(scale < 2.0**126 for scale in scales[:step])
        result = session.train_step(batch, StepValues(1e-4 * (step + 1), scales[step], kind.decay(updates)))
        said.append((result.skipped, result.losses))
    return said


def _moves(one: Arrays, two: Arrays, part: str) -> bool:
    return any(one[key].tobytes() != array.tobytes() for key, array in two.items() if key.startswith(part))


def _whole(name: str, mode: str, state: Arrays, recipe: Recipe) -> Row:
    """Every name and shape; momentum zero; the average that of the weights, or zero."""
    detector, _, _ = fixture(MODEL)
    shapes = {path: info.shape for path, info in detector.graph.weights().items()}
    wanted = {f"weights/{path}": shape for path, shape in shapes.items()}
    wanted |= {f"momentum/{path}": shapes[path] for group in recipe.groups for path in group.names}
    wanted |= {f"ema/{path}": shape for path, shape in shapes.items() if recipe.ema}
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or unknown:
        words = f"{len(missing)} arrays missing {missing[:1]}, {len(unknown)} unknown {unknown[:1]}"
        return holds("steps", name, mode, False, words)
    for key, shape in wanted.items():
        array, (part, _, path) = state[key], key.partition("/")
        if (array.shape, str(array.dtype)) != (shape, "float32"):
            return holds("steps", name, mode, False, f"{key} is {array.dtype} {array.shape}, not float32 {shape}")
        zero = part == "momentum" or (part == "ema" and recipe.ema_zero_start)
        if part != "weights" and (array != (0 if zero else state[f"weights/{path}"])).any():
            return holds("steps", name, mode, False, f"{key} does not start {'at zero' if zero else 'as the weights'}")
    return holds("steps", name, mode, True, "")
