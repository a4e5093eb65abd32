"""Batches for training and validation: the same bits for any number of workers, backend, and point of resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from portdet.config import Config
from portdet.data.order import batch_size, epoch_order, steps_per_epoch
from portdet.data.prepare import EvalPreparer, Task, TrainPreparer
from portdet.data.random import generator
from portdet.data.records import Dataset, Finding, Report
from portdet.data.transforms import normalisation
from portdet.data.workers import Workers
from portdet.errors import PortdetError
from portdet.session import Batch, EvalBatch

Float = NDArray[np.float32]


class _Loader:
    _workers: Workers

    def attend(self, cancelled: Callable[[], bool], say: Callable[[str], None]) -> None:
        """While a worker is waited for: `cancelled` ends the wait with `workers.Cancelled`, `say` gets its lines."""
        self._workers.cancelled, self._workers.say = cancelled, say

    def close(self) -> None:
        """End the worker processes."""
        self._workers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class TrainLoader(_Loader):
    """Training batches of one process (`rank` of `world`).

    `report` counts what is known beforehand to be left out, of all ranks, and why; `lost` what was lost in batches that
    this rank has given out.

    `config.data.batch` is over all processes. `mean` and `std` are of values 0..1 (zeros and ones: only / 255).
    `scores`: batches carry a weight for each box. `noise`: they carry uniform noise, in the shape that it gives for one
    image by the input's side; an image's noise follows from seed, epoch and image alone.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: Config,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        rank: int = 0,
        world: int = 1,
        scores: bool = False,
        noise: Callable[[int], tuple[int, ...]] | None = None,
    ) -> None:
        data = config.data
        if data.batch % world:
            raise PortdetError(f"data.batch={data.batch} does not divide among {world} processes", fix="change either")
        self.steps_per_epoch = steps_per_epoch(len(dataset), data.batch, world)
        if not self.steps_per_epoch:
            raise PortdetError(
                f"{len(dataset)} training images do not fill one batch of {data.batch}", fix="lower data.batch"
            )
        self.report, self.lost = Report(), Report()
        self.report.count(Finding.LEFT_OVER, number=max(len(dataset) - self.steps_per_epoch * data.batch, 0))
        if config.augment.mixes and not scores:
            raise PortdetError(
                "mixed images need a model whose loss weighs boxes, and this model's does not",
                fix="set augment.mixup_epochs=0",
            )
        _check_limit(dataset, config, self.report)
        self._dataset, self._config, self._seed = dataset, config, seed
        self._rank, self._world, self._scores, self._noise_shape = rank, world, scores, noise
        self._sizes = tuple(data.sizes) or (data.imgsz,)
        preparer = TrainPreparer(dataset, config.augment, data.max_boxes, data.resize, normalisation(mean, std), seed)
        largest = data.batch // world * 3 * max(self._sizes) ** 2
        self._workers = Workers(preparer, data.workers, largest)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` (from 0), from `start_step` on. Starting another epoch ends this one."""
        for task, images, (boxes, labels, scores, valid, ids, counts) in self._workers.run(
            self._tasks(epoch, start_step)
        ):
            for position, count in zip(task.positions, counts.tolist(), strict=True):
                name = self._dataset.records[position].name
                self.lost.count(Finding.ALL_LOST, name, int(count == 0))
                if self._config.augment.kind == "ppyolo":
                    self.lost.count(Finding.CUT, name, max(count - self._config.data.max_boxes, 0))
            yield Batch(images, boxes, labels, valid, ids, scores if self._scores else None, self._noise(task))

    def _noise(self, task: Task) -> Float | None:
        if self._noise_shape is None:
            return None
        noise = np.empty((len(task.positions), *self._noise_shape(task.size)), np.float32)
        for i, position in enumerate(task.positions):
            generator(self._seed, task.epoch, position, "noise").random(dtype=np.float32, out=noise[i])
        return noise

    def _tasks(self, epoch: int, start_step: int) -> Iterator[Task]:
        data, count = self._config.data, len(self._dataset)
        order = epoch_order(count, epoch, seed=self._seed, rank=self._rank, world=self._world)
        each = data.batch // self._world
        augmented = self._config.augment.enabled and (
            epoch < self._config.train.epochs - self._config.augment.close_last
        )
        for step in range(start_step, self.steps_per_epoch):
            size = self._sizes[0]
            if len(self._sizes) > 1:
                size = batch_size(self._sizes, epoch, step, count=count, rate=data.resize_rate, seed=self._seed)
            positions = tuple(order[step * each : (step + 1) * each].tolist())
            yield Task(positions, size, epoch, step, augmented)


class EvalLoader(_Loader):
    """Validation batches in the order of the records; no image is lost. Iterate as often as you like."""

    def __init__(self, dataset: Dataset, config: Config, *, mean: Sequence[float], std: Sequence[float]) -> None:
        data = config.data
        self._count, self._batch, self._size = len(dataset), data.val_batch, data.imgsz
        self._workers = Workers(
            EvalPreparer(dataset, data.resize, normalisation(mean, std)), data.workers, self._batch * 3 * self._size**2
        )

    def __len__(self) -> int:
        """Batches, the filled-up last one included."""
        return -(-self._count // self._batch)

    def __iter__(self) -> Iterator[EvalBatch]:
        for task, images, (ids, sizes) in self._workers.run(self._tasks()):
            yield EvalBatch(images, ids, sizes, len(dict.fromkeys(task.positions)))

    def _tasks(self) -> Iterator[Task]:
        for first in range(0, self._count, self._batch):
            yield Task(tuple(min(first + i, self._count - 1) for i in range(self._batch)), self._size)


def _check_limit(dataset: Dataset, config: Config, report: Report) -> None:
    """More boxes than the limit, found before the first step: an error, or counted.

    Any two images may be mixed, so the fullest may meet itself. How many boxes a crop leaves is known only when it is
    drawn: PP-YOLO's augmentation counts what is dropped as it happens.
    """
    limit, mixes = config.data.max_boxes, config.augment.mixes
    most = max(len(record.labels) for record in dataset.records)
    over = [record for record in dataset.records if len(record.labels) + mixes * most > limit]
    if over and config.data.too_many_boxes == "error":
        needed = most * (1 + mixes)
        raise PortdetError(
            f"{len(over[0].labels)} boxes, the limit is {limit}"
            + (f", and it may be mixed with an image that has {most}" if mixes else "")
            + f"; {len(over)} images have more, up to {needed}",
            where=over[0].name,
            fix=f"set data.max_boxes={needed}, or data.too_many_boxes=drop",
        )
    for record in over:
        if config.augment.kind == "ppyolo":
            report.count(Finding.MAY_BE_CUT, record.name)
        else:
            report.count(Finding.OVER_LIMIT, record.name, len(record.labels) - limit)
