"""Two processes against one on the same global batch, started by the backend's own launcher."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from portdet.backends import load_backend, open_session
from portdet.conformance.fixtures import fixture
from portdet.conformance.rows import Row, holds
from portdet.errors import PortdetError
from portdet.ranks import ALONE, Place
from portdet.session import Arrays, Batch, Group, Options, Recipe, StepValues
from portdet.train.groups import decays

WORLD, TIMEOUT, STEPS = 2, 600.0, 3
BOUNDS = {"loss": 2e-6, "gradient": 5e-5, "norm": 2e-6, "state": 1e-4}
"""Norm of a tensor's difference over the largest norm of its kind. The sums run in another order, over as few as eight
values in the deepest norms: gradients were 1.2e-5 to 2.4e-5 apart; without an exchange they are 1 and more."""


def check(backend: str, options: Options, folder: Path) -> list[Row]:
    """Rows for losses, gradients, statistics and state; for what the ranks share and what they refuse."""
    mode = options.mode
    launcher = load_backend(backend).launcher
    logs = folder / "logs"
    logs.mkdir()
    script = Path(__file__).with_name("rank.py")
    command = launcher.command(WORLD, logs, [str(script), str(folder), backend, mode, options.device])
    path = os.pathsep.join(entry for entry in sys.path if entry)
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        said, code = done.stderr + done.stdout, done.returncode
    except subprocess.TimeoutExpired:
        said, code = f"nothing within {TIMEOUT:g} s", -1
    files = [folder / f"{rank}.npz" for rank in range(WORLD)]
    if code or not all(file.exists() for file in files):
        lines = [line for line in said.splitlines() if line.strip()][-4:]
        return [
            Row("ranks", "two processes", mode, "failed", f"{launcher.name} ended with {code}: {' / '.join(lines)}")
        ]
    found = [dict(np.load(file)) for file in files]
    return [*_rows(mode, found, numbers(backend, replace(options, threads=1), folder / "alone"))]


def _rows(mode: str, found: list[Arrays], alone: Arrays) -> Iterator[Row]:
    for part, bound in BOUNDS.items():
        apart, name = _apart(part, found[0], alone)
        text = f"{apart:.1e}" if apart <= bound else f"{name}: {apart:.1e}, {bound:.0e} is allowed"
        yield Row("ranks", f"{part} as of one process", mode, "passed" if apart <= bound else "failed", text)
    other = [key for key in found[0] if key.startswith("state/") and found[0][key].tobytes() != found[1][key].tobytes()]
    yield holds(
        "ranks", "the same state on all ranks", mode, not other, f"other bits in {len(other)}, first {other[:1]}"
    )
    told = [rank["gathered"].tolist() for rank in found]
    yield holds("ranks", "gather", mode, told == [[0, 1]] * WORLD, f"gave {told}")
    refused = [bool(rank["refused"]) for rank in found]
    yield holds("ranks", "refuses different weights", mode, all(refused), f"refused by rank: {refused}")


def _apart(part: str, got: Arrays, want: Arrays) -> tuple[float, str]:
    """The largest distance, and whose it is; infinite for nan or a missing tensor."""
    keys = [key for key in want if key.startswith(f"{part}/")]
    if keys != [key for key in got if key.startswith(f"{part}/")]:
        return float("inf"), "other names"
    largest = max(float(np.linalg.norm(want[key])) for key in keys)
    all_apart = {key: float(np.linalg.norm(got[key].astype(np.float64) - want[key])) / largest for key in keys}
    worst = max(all_apart, key=lambda key: all_apart[key] if np.isfinite(all_apart[key]) else np.inf)
    return (all_apart[worst] if np.isfinite(all_apart[worst]) else float("inf")), worst


def share(batch: Batch, place: Place) -> Batch:
    """Every world-th image from the rank's on, as the loader deals them out."""
    parts = {name: array for name, array in vars(batch).items() if array is not None}
    return Batch(**{name: array[place.rank :: place.world] for name, array in parts.items()})


def numbers(backend: str, options: Options, folder: Path) -> Arrays:
    """loss/, gradient/ and norm/ of one step on the rank's share; the state after STEPS steps; what was gathered."""
    detector, weights, whole = fixture("yolov3")
    shapes = {name: info.shape for name, info in detector.graph.weights().items() if info.trainable}
    heavy = tuple(name for name, shape in shapes.items() if decays(name, shape))
    light = tuple(name for name in shapes if name not in heavy)
    recipe = Recipe((Group(heavy, 5e-4), Group(light, 0.0)), clip_norm=10.0, ema=True)
    session = open_session(detector, backend, recipe, options, folder)
    session.load_weights(weights)
    batch = share(whole, options.place)
    losses, gradients = session.losses_and_gradients(batch)
    out: Arrays = {f"loss/{name}": np.array(value) for name, value in losses.items()}
    out |= {f"gradient/{name}": array for name, array in gradients.items()}
    out |= {f"norm/{name}": array for name, array in session.weights().items() if "running" in name}
    session.load_weights(weights)
    for _ in range(STEPS):
        session.train_step(batch, StepValues(1e-5, 1.0, 0.9))
    out |= {f"state/{name}": array for name, array in session.state().items()}
    out["gathered"] = np.array(session.gather(options.place.rank))
    out["refused"] = np.array(False)
    first = next(iter(weights))
    try:  # each rank with weights of its own
        session.load_weights({**weights, first: weights[first] + np.float32(options.place.rank)})
    except PortdetError:
        out["refused"] = np.array(True)
    session.close()
    return out


def serve(folder: str, backend: str, mode: str, device: str) -> None:
    """One rank: writes FOLDER/N.npz, N its rank."""
    place = load_backend(backend).launcher.place()
    if place is ALONE:
        raise PortdetError(f"{load_backend(backend).launcher.name} gave this process no rank")
    options = Options(device=device, mode=mode, threads=1, place=place)
    np.savez(Path(folder, f"{place.rank}.npz"), **numbers(backend, options, Path(folder, f"source{place.rank}")))
