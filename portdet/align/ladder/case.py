"""What a ladder compares on: a configuration's own detector, data, recipe, schedule and initial weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from portdet.align.ladder.plan import Plan
from portdet.backends import load_backend, open_session
from portdet.config import Config
from portdet.data import open_datasets
from portdet.data.loader import TrainLoader
from portdet.errors import PortdetError
from portdet.models import Detector
from portdet.session import Arrays, Batch, Options, Recipe, Session, StepValues
from portdet.spec.init import initial_weights
from portdet.state import check_weights
from portdet.train.ema import Ema, ema
from portdet.train.job import model_of, recipe_of
from portdet.train.loss_scale import LossScale, loss_scale
from portdet.train.schedule import Schedule, schedule

Mode = Literal["", "default", "eager", "compiled"]


@dataclass(frozen=True)
class Case:
    """A training, ready to be looked at step by step. Steps count from 0 over all epochs.

    loader: gives the training's own batches, prepared in this process. weights: file of all initial weights by
    canonical name (safetensors); empty: they follow from (seed, name).
    """

    config: Config
    detector: Detector
    loader: TrainLoader
    weights: str = ""
    _batches: dict[int, Batch] = field(default_factory=dict, repr=False)

    @cached_property
    def recipe(self) -> Recipe:
        return recipe_of(self.config, self.detector)

    @cached_property
    def schedule(self) -> Schedule:
        return schedule(self.config, self.loader.steps_per_epoch)

    @cached_property
    def average(self) -> Ema:
        return ema(self.config.ema)

    @property
    def steps(self) -> int:
        """Of the whole training."""
        limit = self.config.train.max_steps
        return min(limit or self.schedule.total_steps, self.schedule.total_steps)

    def batch(self, step: int) -> Batch:
        """What the training sees at `step`. The last one is kept, as it is probed many times."""
        if step not in self._batches:
            found = next(self.batches(step))
            self._batches.clear()
            self._batches[step] = found
        return self._batches[step]

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """The training's batches from step `start` on, over the ends of epochs."""
        epoch, step = divmod(start, self.loader.steps_per_epoch)
        while True:
            for batch in self.loader.epoch(epoch, step):
                self.loader.lost.clear()
                yield batch
            epoch, step = epoch + 1, 0

    def values(self, step: int) -> StepValues:
        """What the loop decides for `step` where no step before it was skipped."""
        scale: LossScale = loss_scale(self.config.optim.loss_scale)
        doubled = step // scale.window if scale.dynamic else 0
        return StepValues(self.schedule.lr_at(step), scale.scale * 2.0**doubled, self.average.decay(step))

    @cached_property
    def initial(self) -> Arrays:
        """The weights that the training starts from, by canonical name. Raises PortdetError for a file of others."""
        drawn = initial_weights(self.detector.graph, self.config.train.seed)
        if not self.weights:
            return drawn
        try:
            given: Arrays = load_file(self.weights)
        except (OSError, SafetensorError) as error:
            raise PortdetError(f"no initial weights: {error}", where=self.weights) from None
        check_weights(given, {name: array.shape for name, array in drawn.items()})
        return {name: np.asarray(given[name], np.float32) for name in drawn}


def case_of(config: Config, weights: str = "") -> Case:
    """The case of a configuration, whose backend says where it is going to run. Reads or draws the training set."""
    config = config.model_copy(deep=True)
    config.data.workers = 0
    train_set, _ = open_datasets(config.data, config.train.seed)
    detector = model_of(config, train_set.names)
    fields = detector.fields
    loader = TrainLoader(
        train_set, config, mean=fields.mean, std=fields.std, seed=config.train.seed,
        scores=detector.scores, noise=detector.noise,
    )  # fmt: skip
    return Case(config, detector, loader, weights)


def planned(plan: Plan, backend: str) -> Case:
    """The case of a plan on one backend."""
    return case_of(plan.configuration(backend), plan.weights)


def open_case(
    case: Case,
    folder: Path,
    *,
    detector: Detector | None = None,
    recipe: Recipe | None = None,
    threads: int = 0,
    mode: Mode = "",
    precision: str = "float32",
) -> Session:
    """A session of the case's backend and device, with the initial weights; its source goes into `folder`.

    detector, recipe: others than the case's, for planted faults. threads, mode: others than the configuration's.
    precision: float64 where the backend `has_float64`.
    """
    settings = case.config.train
    options = Options(settings.device, mode or settings.mode, threads or settings.threads, precision)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = detector or case.detector, settings.backend, recipe or case.recipe
    session = open_session(*chosen, options, folder)
    session.load_weights(case.initial)
    return session


def has_float64(backend: str) -> bool:
    """Whether a backend computes in float64."""
    return "float64" in load_backend(backend).other_precisions
