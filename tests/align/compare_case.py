"""A tiny YOLOv3 in the middle of its training, and what one step of it shows on any backend."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from portdet.align.compare import Envelope, Result, compare
from portdet.align.probe import perturbed, probe
from portdet.backends import open_session
from portdet.models import Detector
from portdet.session import Arrays, Batch, Group, Options, Recipe, Session, StepValues
from portdet.train.groups import decays
from tests.backends.harness import smooth

VALUES = StepValues(lr=1e-3, ema_decay=0.9)
CALM, KINKED = 50, 7
"""Draws of the norms. With 50 no gradient of 48 self-runs moves by more than 5e-5; with 7 activations change sides of
zero in some of them, and gradients move by up to 17 %."""


@dataclass(frozen=True)
class Case:
    """A detector, its whole state and a batch."""

    detector: Detector
    state: Arrays
    batch: Batch


def case(draw: int = CALM) -> Case:
    """114 weights, two images of 64 px; norms, momentum and average as after some training."""
    detector, weights, batch = smooth()
    random = np.random.RandomState(draw)
    for name, array in weights.items():
        if ".norm." in name:
            low, high = {"bias": (-0.3, 0.3), "running_mean": (-0.3, 0.3)}.get(name.rpartition(".")[2], (0.6, 1.4))
            weights[name] = random.uniform(low, high, array.shape).astype(np.float32)
    state = {f"weights/{name}": array for name, array in weights.items()}
    for name, info in detector.graph.weights().items():
        if info.trainable:
            state[f"momentum/{name}"] = random.uniform(-1, 1, info.shape).astype(np.float32)
    for name, array in weights.items():
        state[f"ema/{name}"] = (array * random.uniform(0.9, 1.1, array.shape)).astype(np.float32)
    return Case(detector, state, batch)


def recipe(detector: Detector, decay: float = 5e-3, everywhere: bool = False, **changes: Any) -> Recipe:
    """Decay on kernels alone (or everywhere), momentum 0.9, an EMA."""
    trained = {name: info.shape for name, info in detector.graph.weights().items() if info.trainable}
    decayed = tuple(name for name, shape in trained.items() if decays(name, shape))
    plain = tuple(name for name in trained if name not in decayed)
    return replace(Recipe((Group(decayed, decay), Group(plain, decay * everywhere)), momentum=0.9, ema=True), **changes)


def opened(
    detector: Detector,
    chosen: Recipe,
    folder: Path,
    backend: str = "torch",
    *,
    precision: str = "float32",
) -> Session:
    """A session on the generated source."""
    return open_session(detector, backend, chosen, Options(mode="eager", threads=1, precision=precision), folder)


def observed(session: Session, one: Case, seed: int | None = None, values: StepValues = VALUES) -> Arrays:
    """What `probe` sees, with state and images one ulp away if a seed is given."""
    found: Arrays = {}
    state, batch = (one.state, one.batch) if seed is None else perturbed(one.state, one.batch, seed)
    probe(session, state, batch, values, found.__setitem__)
    return found


class Bench:
    """The reference, its envelope, and comparisons with what other sessions show."""

    def __init__(self, draw: int, backend: str = "torch", self_runs: int = 16) -> None:
        self.one, self.backend = case(draw), backend
        self.session = self.open(recipe(self.one.detector))
        self.reference = observed(self.session, self.one)
        self.envelope = Envelope()
        for seed in range(self_runs):
            self.envelope.add(self.reference, observed(self.session, self.one, seed))

    def open(self, chosen: Recipe, detector: Detector | None = None, precision: str = "float32") -> Session:
        folder = Path(tempfile.mkdtemp())
        return opened(detector or self.one.detector, chosen, folder, self.backend, precision=precision)

    def run(self, session: Session, seeds: range, values: StepValues = VALUES) -> list[Arrays]:
        return [observed(session, self.one, seed, values) for seed in seeds]

    def compare(self, session: Session, seeds: range, values: StepValues = VALUES) -> Result:
        return compare(self.reference, self.run(session, seeds, values), self.envelope)


bench = functools.cache(Bench)
