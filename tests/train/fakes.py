"""A session and a loader small enough to work out by hand: momentum SGD on loss = |w - mean(images)|^2 / 2."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from portdet.config import Config
from portdet.errors import PortdetError
from portdet.session import Array, Arrays, Batch, StepResult, StepValues
from portdet.train.loop import Outcome, Trainer

NAMES = ("head.weight", "head.bias")


class FakeSession:
    """Two float32 weights of one value each, and a BN-like buffer; `overflow_at`, `nan_at`: steps with that fault."""

    backend, device = "fake", "cpu"

    def __init__(
        self, *, zero_start: bool = False, overflow_at: tuple[int, ...] = (), nan_at: int = -1, stop_at: int = -1
    ) -> None:
        self.zero_start, self.overflow_at, self.nan_at, self.stop_at = zero_start, overflow_at, nan_at, stop_at
        self.values_seen: list[StepValues] = []
        self.load_weights({name: np.array([index + 1], np.float32) for index, name in enumerate(NAMES)})

    def load_weights(self, weights: Mapping[str, Array]) -> None:
        self.w = {name: weights[name].copy() for name in NAMES}
        self.m = {name: np.zeros(1, np.float32) for name in NAMES}
        self.e = {name: self.w[name] * np.float32(not self.zero_start) for name in NAMES}

    def weights(self) -> Arrays:
        return {name: value.copy() for name, value in self.w.items()}

    def train_step(self, batch: Batch, values: StepValues) -> StepResult:
        step = len(self.values_seen)
        self.values_seen.append(values)
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        if step in self.overflow_at:
            return StepResult({"loss": float("inf"), "xy": 0.0}, skipped=True)
        target = np.float32(batch.images.mean())
        parts = [np.float32(0.5) * (self.w[name] - target) ** 2 for name in NAMES]
        for name in NAMES:
            self.m[name] = np.float32(0.9) * self.m[name] + (self.w[name] - target)
            self.w[name] = self.w[name] - np.float32(values.lr) * self.m[name]
            d = np.float32(values.ema_decay)
            self.e[name] = d * self.e[name] + (np.float32(1) - d) * self.w[name]
        loss = float("nan") if step == self.nan_at else float(parts[0][0] + parts[1][0])
        return StepResult({"loss": loss, "xy": float(parts[0][0])})

    def losses_and_gradients(self, batch: Batch) -> tuple[dict[str, float], Arrays]:
        raise NotImplementedError

    def predict(self, images: Array) -> Array:
        raise NotImplementedError

    def activations(self, images: Array) -> Arrays:
        raise NotImplementedError

    def state(self) -> Arrays:
        groups = {"weights": self.w, "momentum": self.m, "ema": self.e}
        return {f"{group}/{name}": value.copy() for group, values in groups.items() for name, value in values.items()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        for group, values in {"weights": self.w, "momentum": self.m, "ema": self.e}.items():
            values.update({name: state[f"{group}/{name}"].copy() for name in NAMES})

    @contextmanager
    def ema_weights(self, correction: float = 1.0) -> Iterator[None]:
        raw, self.w = self.w, {name: (value / correction).astype(np.float32) for name, value in self.e.items()}
        try:
            yield
        finally:
            self.w = raw

    def facts(self) -> dict[str, str]:
        return {}

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def close(self) -> None:
        pass


class FakeLoader:
    """`steps` batches of two 2-pixel images; values come from (epoch, step). `broken_at`: raises there."""

    def __init__(self, steps: int = 5, broken_at: tuple[int, int] | None = None) -> None:
        self.steps_per_epoch, self.broken_at = steps, broken_at
        self.open = 0

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        self.open += 1
        try:
            for step in range(start_step, self.steps_per_epoch):
                if self.broken_at == (epoch, step):
                    raise PortdetError("cannot read image 7")
                yield batch(epoch, step)
        finally:
            self.open -= 1


def batch(epoch: int, step: int, size: int = 2) -> Batch:
    """A batch drawn from its place in the training."""
    rng = np.random.default_rng((epoch, step))
    return Batch(
        images=rng.standard_normal((2, 3, size, size)).astype(np.float32),
        boxes=np.zeros((2, 4, 4), np.float32),
        labels=np.zeros((2, 4), np.int32),
        valid=np.zeros((2, 4), bool),
        image_ids=np.array([step, step + 100], np.int64),
    )


def score(session: Any, epoch: int) -> dict[str, float]:
    """A metric that rises as the weights approach zero, the mean of the images."""
    total = float(sum(np.abs(value).sum() for value in session.weights().values()))
    return {"AP": 1 / (1 + total), "AP50": 1 / (1 + total / 2)}


def settings(**words: Any) -> Config:
    """A configuration of three epochs with an exponential EMA; words as 'section__key'."""
    values: dict[str, dict[str, Any]] = {
        "train": {"epochs": 3},
        "optim": {"lr0": 0.05, "warmup_epochs": 1.0},
        "ema": {"kind": "exponential", "decay": 0.99, "tau": 5.0},
    }
    for word, value in words.items():
        section, _, key = word.partition("__")
        values.setdefault(section, {})[key] = value
    return Config.model_validate(values)


def train(
    folder: Path, config: Config | None = None, *, loader: Any = None, **faults: Any
) -> tuple[Trainer, FakeSession]:
    config = config or settings()
    session = FakeSession(zero_start=config.ema.kind == "threshold", **faults)
    return Trainer(config, session, loader or FakeLoader(), folder, validate=score), session


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def resumed(folder: Path, config: Config, **faults: Any) -> Outcome:
    trainer, _ = train(folder, config, **faults)
    trainer.resume()
    return trainer.run()


def files(folder: Path) -> dict[str, str]:
    """Content of a run's files that must not depend on an interruption: all but the clock."""
    clock = ("time", "images_per_s")
    results = [{k: v for k, v in row.items() if k not in clock} for row in rows(folder / "results.csv")]
    return {"steps": (folder / "steps.csv").read_text(), "results": str(results)}
