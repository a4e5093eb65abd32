"""Measures one backend, in a process of its own: `python -m portdet.bench.measure REQUEST ANSWER`, see `run_child`.

Rounds of blocks, so that a busy machine slows all variants alike: steps of the training loop, steps of the bare module,
then steps with and without EMA in turn. The first steps of a block are not counted: loader workers still fill the
batches that they keep ready.
"""

from __future__ import annotations

import importlib
import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, cast

from portdet.backends import load_backend, open_session, source_text
from portdet.bench import CONVOLUTION_FLOPS, BareBackend
from portdet.config import Config
from portdet.data import Dataset, open_dataset
from portdet.data.loader import TrainLoader
from portdet.errors import PortdetError
from portdet.lower.names import native_names
from portdet.models import Detector
from portdet.processes.child import serve
from portdet.processes.cores import cores
from portdet.processes.scratch import scratch
from portdet.report.progress import Progress
from portdet.session import Arrays, Batch, Options, Session, Source, StepValues
from portdet.spec.init import initial_weights
from portdet.train.groups import recipe
from portdet.train.job import model_of
from portdet.train.loop import Trainer

Step = Callable[[], object]
LR = 1e-6  # weights hardly move, so no step overflows
ROUNDS = 5
WARM = 3


class Times:
    """Wall and CPU seconds of the steps of one variant."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self._from = (0.0, 0.0)

    def start(self) -> None:
        self._from = (time.perf_counter(), time.process_time())

    def stop(self, *, counted: bool = True) -> None:
        if counted:
            self.wall.append(time.perf_counter() - self._from[0])
            self.cpu.append(time.process_time() - self._from[1])

    def run(self, step: Step, count: int, skip: int) -> None:
        """skip + count steps; the first ones are not counted."""
        for number in range(skip + count):
            self.start()
            step()
            self.stop(counted=number >= skip)

    def facts(self) -> dict[str, float]:
        """The middle with its standard error, and the spread."""
        ordered = sorted(self.wall)
        quarter = len(ordered) // 4
        middle, error = _middle(ordered)
        return {
            "count": len(ordered),
            "median": middle,
            "error": error,
            "best": ordered[0],
            "lower_quartile": ordered[quarter],
            "upper_quartile": ordered[-1 - quarter],
            "cpu_median": median(self.cpu),
        }


class Enough(Exception):
    """Ends the training loop without writing a checkpoint."""


class Rounds:
    """Observer of the training loop: times its steps, and lets the other variants run between its blocks."""

    def __init__(self, progress: Progress, times: Times, block: int, skip: int, between: Callable[[int], None]) -> None:
        self.progress, self.times, self.block, self.skip, self.between = progress, times, block, skip, between
        self.done, self.rounds = -WARM, 0

    def step(self, epoch: int, step: int, losses: Mapping[str, float]) -> None:
        self.progress.step(epoch, step, losses)
        self.times.stop(counted=self.done >= self.skip)
        self.done += 1
        if self.done == 0 or self.done == self.skip + self.block:
            self.between(self.rounds)
            self.rounds, self.done = self.rounds + 1, 0
        if self.rounds > ROUNDS:
            raise Enough
        self.times.start()

    def note(self, text: str) -> None:
        self.progress.note(text)

    def validation(self) -> AbstractContextManager[None]:
        return self.progress.validation()


def measure(config: Config, *, steps: int, synthetic: bool) -> dict[str, Any]:
    """Times of `steps` steps of each variant, memory, and the speed of one convolution. Seconds and bytes."""
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        config = _for_timing(config)
        block = max(-(-steps // ROUNDS), 1)
        dataset = _synthetic(config, block) if synthetic else open_dataset(config.data, "train")
        detector = model_of(config, dataset.names)
        seed, fields = config.train.seed, detector.fields
        loader = TrainLoader(
            dataset, config, mean=fields.mean, std=fields.std, seed=seed, scores=detector.scores, noise=detector.noise
        )
        stack.callback(loader.close)
        variants = _Variants(config, detector, folder, stack)
        times, ema, plain, bare, alone = (Times() for _ in range(5))
        facts: dict[str, Any] = {}
        skip = 2 * config.data.workers

        def between(number: int) -> None:
            if number == 0:  # the loop has run its first steps alone
                facts["rss_bytes"] = _peak_rss()
                facts["device_bytes"] = variants.bare.peak_device_bytes()
                variants.open_others(held)
                for step in (variants.bare_step, variants.with_ema, variants.without_ema) * 2:
                    step()
                return
            bare.run(variants.bare_step, block, skip)
            _in_turn([(ema, variants.with_ema), (plain, variants.without_ema)], block)
            if variants.average:
                alone.run(variants.average, block, 0)

        held = next(loader.epoch(0))
        with Path(os.devnull).open("w") as nowhere:
            progress = Progress(
                1, loader.steps_per_epoch, batch=config.data.batch, log_every=config.train.log_every, stream=nowhere
            )
            rounds = Rounds(progress, times, block, skip, between)
            trainer = Trainer(config, variants.loop, loader, folder, observer=rounds)
            times.start()
            try:
                trainer.run()
            except Enough:
                pass
            else:
                raise PortdetError("the training loop ended before the measurement", fix="set patience=0, max_steps=0")
        return {
            **facts,
            "session": variants.loop.facts(),
            "batch": config.data.batch,
            "imgsz": config.data.imgsz,
            "ema_kind": config.ema.kind,
            "portdet": times.facts(),
            "bare": bare.facts(),
            "step": (plain if not variants.loop_has_ema else ema).facts(),
            **_average(ema, plain, alone),
            "convolution_gflops": CONVOLUTION_FLOPS / variants.bare.convolution_seconds(variants.options) / 1e9,
        }


def _average(ema: Times, plain: Times, alone: Times) -> dict[str, float | None]:
    """What the moving average costs: by steps with and without it, and by its update alone."""
    cost, error = _middle([a - b for a, b in zip(ema.wall, plain.wall, strict=True)])
    step = median(plain.wall)
    return {
        "ema_seconds": cost,
        "ema_share": cost / step,
        "ema_share_error": error / step,
        "ema_alone_share": median(alone.wall) / step if alone.wall else None,
    }


def _in_turn(pair: list[tuple[Times, Step]], count: int) -> None:
    """A, B, B, A, ...: what drifts meanwhile counts for neither."""
    for turn in range(count):
        for times, step in pair if turn % 2 == 0 else reversed(pair):
            times.run(step, 1, 0)


def _middle(values: Sequence[float]) -> tuple[float, float]:
    """The median and its standard error, from the median distance to it: a few disturbed steps change neither much."""
    middle = median(values)
    return middle, 1.2533 * 1.4826 * median(abs(value - middle) for value in values) / len(values) ** 0.5


class _Variants:
    """The sessions with and without EMA, one of which the training loop uses, and the bare module."""

    def __init__(self, config: Config, detector: Detector, folder: Path, stack: ExitStack) -> None:
        t = config.train
        self.config, self.detector, self.folder, self.stack = config, detector, folder, stack
        self.backend = load_backend(t.backend)
        mode = self.backend.default_mode if t.mode == "default" else t.mode
        self.options = Options(t.device, mode, t.threads)
        self.weights: Arrays = initial_weights(detector.graph, t.seed)
        shapes = {name: info.shape for name, info in detector.graph.weights().items()}
        self.recipe = recipe(config, shapes, detector.stages)
        self.loop_has_ema = self.recipe.ema
        self.loop = self._session(self.loop_has_ema)
        module = type(self.backend).__module__
        try:
            self.bare = cast(BareBackend, importlib.import_module(f"{module}.bench"))
        except ModuleNotFoundError as error:
            raise PortdetError(
                f"backend '{t.backend}' cannot be timed: {error}", fix=f"write {module}/bench.py"
            ) from None

    def _session(self, ema: bool) -> Session:
        folder = self.folder / f"ema_{ema}"
        folder.mkdir()
        session = open_session(
            self.detector, self.config.train.backend, replace(self.recipe, ema=ema), self.options, folder
        )
        self.stack.callback(session.close)
        session.load_weights(self.weights)
        return session

    def open_others(self, batch: Batch) -> None:
        """The variants that the loop does not need, all to be run on `batch`."""
        other = self._session(not self.loop_has_ema)
        with_ema, without = (self.loop, other) if self.loop_has_ema else (other, self.loop)
        scale = self.config.optim.loss_scale
        values = StepValues(LR, 1.0 if scale == "dynamic" else float(scale), 0.999)
        self.with_ema: Step = lambda: with_ema.train_step(batch, values)
        # by itself where the clock sees it: on a CPU the update has ended when the call has
        shadow = getattr(with_ema, "shadow", None) if with_ema.device == "cpu" else None
        self.average: Step | None = (lambda: shadow.update(values.ema_decay)) if shadow else None
        self.without_ema: Step = lambda: without.train_step(batch, values)
        names = native_names(self.detector.graph, self.backend.target)
        native = {names[name]: array for name, array in self.weights.items()}
        source = Source(source_text(self.detector, self.backend.target), self.folder / "bare.py")
        class_name = self.detector.graph.class_name
        self.bare_step: Step = self.bare.bare_step(source, class_name, native, batch, self.options)


def _for_timing(config: Config) -> Config:
    """One size, many epochs, no limits, no more workers than cores beside the step; all else as configured.

    Twice as many steps as workers are not counted in each block: with 8 workers those are most of the time.
    """
    config = config.model_copy(deep=True)
    config.data.sizes = []
    config.data.workers = min(config.data.workers, max(cores() - 1, 1))
    config.optim.lr0, config.optim.eta_min = LR, 0.0
    config.train.epochs, config.train.max_steps = 10**6, 0
    return config


def _synthetic(config: Config, block: int) -> Dataset:
    """Drawn scenes of the input's size, enough for one epoch, under as many class names as the model has."""
    data = config.data
    data.format, data.scene_size, data.fraction = "scenes", data.imgsz, 1.0
    data.train_count = data.batch * (WARM + ROUNDS * (2 * data.workers + block) + 4)
    drawn = open_dataset(data, "train")
    classes = max(int(config.model.get("classes", 80)), len(drawn.names))
    config.model = {**config.model, "classes": classes}
    names = (*drawn.names, *(f"class {number}" for number in range(len(drawn.names), classes)))
    return replace(drawn, names=names, category_ids=tuple(range(1, classes + 1)))


def _peak_rss() -> int:
    """Most memory that this process had so far, in bytes (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def answer(request: Any) -> dict[str, Any]:
    """`measure` for `run_child`."""
    return measure(Config.model_validate(request["config"]), steps=request["steps"], synthetic=request["synthetic"])


if __name__ == "__main__":
    serve(answer)
