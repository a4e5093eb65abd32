"""Two processes against one on the same global batch, started by the backend's own launcher."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from portdet.backends import load_backend, open_session
from portdet.conformance.fixtures import fixture, two_groups
from portdet.conformance.rows import Row, holds
from portdet.errors import PortdetError
from portdet.files import write_text
from portdet.processes.child import environment
from portdet.ranks import ALONE, Place
from portdet.session import Array, Arrays, Batch, Options, Recipe, Session, StepValues

WORLD, TIMEOUT, STEPS = 2, 600.0, 3
BOUNDS = {"loss": 2e-6, "gradient": 5e-5, "norm": 2e-6, "state": 1e-4}
"""Norm of a tensor's difference over the largest norm of its kind. The sums run in another order, over as few as eight
values in the deepest norms: gradients were 1.2e-5 to 2.4e-5 apart; without an exchange they are 1 and more."""


def check(backend: str, options: Options, folder: Path) -> list[Row]:
    """Rows for losses, gradients, statistics and state; for what the ranks share and what they refuse."""
    mode = options.mode
    try:
        launch(__name__, {"backend": backend, "mode": mode, "device": options.device}, folder)
    except PortdetError as error:
        return [Row("ranks", "two processes", mode, "failed", error.what)]
    found = [dict(np.load(folder / f"{rank}.npz")) for rank in range(WORLD)]
    return [*_rows(mode, found, _numbers(backend, replace(options, threads=1), folder / "alone"))]


def serve(folder: Path, request: Mapping[str, Any], place: Place) -> None:
    """One rank: writes FOLDER/N.npz, N its rank."""
    options = Options(device=request["device"], mode=request["mode"], threads=1, place=place)
    np.savez(folder / f"{place.rank}.npz", **_numbers(request["backend"], options, folder / f"source{place.rank}"))


def launch(module: str, request: Mapping[str, Any], folder: Path, timeout: float = TIMEOUT) -> None:
    """Have WORLD ranks of `request["backend"]` run `serve(folder, request, place)` of `module`, and wait for them.

    Raises PortdetError, with the last lines, where they do not end well within `timeout` seconds.
    """
    logs = folder / "logs"
    logs.mkdir(parents=True)
    write_text(folder / "request.json", json.dumps(request))
    launcher = load_backend(request["backend"]).launcher
    command = launcher.command(WORLD, logs, [str(Path(__file__).with_name("rank.py")), str(folder), module])
    env = {**environment(), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, check=False)
        said, code = done.stderr + done.stdout, done.returncode
    except subprocess.TimeoutExpired:
        said, code = f"nothing within {timeout:g} s", -1
    if code or not all((folder / f"done{rank}").exists() for rank in range(WORLD)):
        lines = [line for line in said.splitlines() if line.strip()]
        lines = [line for line in lines if re.match(r"\s*[\w.]*(Error|Exception)\b.*: ", line)][-2:] or lines[-4:]
        raise PortdetError(f"{launcher.name} ended with {code}: {' / '.join(lines)}")


def run_rank(folder: Path, module: Any) -> None:
    """What `rank.py` does."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    launcher = load_backend(request["backend"]).launcher
    place = launcher.place()
    if place is ALONE:
        raise PortdetError(f"{launcher.name} gave this process no rank")
    module.serve(folder, request, place)
    (folder / f"done{place.rank}").touch()


def share(batch: Batch, place: Place) -> Batch:
    """Every world-th image from the rank's on, as the loader deals them out."""
    parts = {name: array for name, array in vars(batch).items() if array is not None}
    return Batch(**{name: array[place.rank :: place.world] for name, array in parts.items()})


def numbers(
    session: Session, weights: Mapping[str, Array], batches: Sequence[Batch], values: Sequence[StepValues]
) -> Arrays:
    """loss/, gradient/ and norm/ (running statistics) on the first batch; state/ after a step on each.

    batches: this rank's shares.
    """
    session.load_weights(weights)
    losses, gradients = session.losses_and_gradients(batches[0])
    out: Arrays = {f"loss/{name}": np.array(value) for name, value in losses.items()}
    out |= {f"gradient/{name}": array for name, array in gradients.items()}
    session.train_step(batches[0], StepValues(0.0))  # moves the statistics alone
    out |= {f"norm/{name}": array for name, array in session.weights().items() if "running" in name}
    session.load_weights(weights)
    for batch, of_step in zip(batches, values, strict=True):
        session.train_step(batch, of_step)
    return out | {f"state/{name}": array for name, array in session.state().items()}


def manners(session: Session, weights: Mapping[str, Array], place: Place) -> Arrays:
    """What was gathered, and whether weights that are others on each rank were refused."""
    gathered = np.array(session.gather(place.rank))
    first = next(iter(weights))
    try:
        session.load_weights({**weights, first: weights[first] + np.float32(place.rank)})
    except PortdetError:
        return {"gathered": gathered, "refused": np.array(True)}
    return {"gathered": gathered, "refused": np.array(False)}


def shared(found: Sequence[Arrays]) -> Iterator[tuple[str, bool, str]]:
    """What all ranks must agree on: name, whether they do, and what was found instead. found: by rank."""
    first = found[0]
    other = [
        key
        for key in first
        if key.startswith("state/") and {rank[key].tobytes() for rank in found[1:]} != {first[key].tobytes()}
    ]
    yield "the same state on all ranks", not other, f"other bits in {len(other)}, first {other[:1]}"
    told = [rank["gathered"].tolist() for rank in found]
    yield "gather", told == [[*range(WORLD)]] * WORLD, f"gave {told}"
    refused = [bool(rank["refused"]) for rank in found]
    yield "refuses different weights", all(refused), f"refused by rank: {refused}"


def _numbers(backend: str, options: Options, folder: Path) -> Arrays:
    """All numbers of a small YOLOv3."""
    detector, weights, whole = fixture("yolov3")
    recipe = Recipe(two_groups(detector, 5e-4), clip_norm=10.0, ema=True)
    session = open_session(detector, backend, recipe, options, folder)
    batch = share(whole, options.place)
    out = numbers(session, weights, [batch] * STEPS, [StepValues(1e-5, 1.0, 0.9)] * STEPS)
    out |= manners(session, weights, options.place)
    session.close()
    return out


def _rows(mode: str, found: list[Arrays], alone: Arrays) -> Iterator[Row]:
    for part, bound in BOUNDS.items():
        apart, name = _apart(part, found[0], alone)
        text = f"{apart:.1e}" if apart <= bound else f"{name}: {apart:.1e}, {bound:.0e} is allowed"
        yield Row("ranks", f"{part} as of one process", mode, "passed" if apart <= bound else "failed", text)
    for name, true, otherwise in shared(found):
        yield holds("ranks", name, mode, true, otherwise)


def _apart(part: str, got: Arrays, want: Arrays) -> tuple[float, str]:
    """The largest distance, and whose it is; infinite for nan or a missing tensor."""
    keys = [key for key in want if key.startswith(f"{part}/")]
    if keys != [key for key in got if key.startswith(f"{part}/")]:
        return float("inf"), "other names"
    largest = max(float(np.linalg.norm(want[key])) for key in keys)
    all_apart = {key: float(np.linalg.norm(got[key].astype(np.float64) - want[key])) / largest for key in keys}
    worst = max(all_apart, key=lambda key: all_apart[key] if np.isfinite(all_apart[key]) else np.inf)
    return (all_apart[worst] if np.isfinite(all_apart[worst]) else float("inf")), worst
