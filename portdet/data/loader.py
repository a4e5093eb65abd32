"""Batches for training and validation: the same bits for any number of workers, backend, and point of resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from portdet.config import AugmentConfig, Config
from portdet.data.augment import augment, over_one_pixel
from portdet.data.order import batch_size, epoch_order, steps_per_epoch
from portdet.data.random import generator
from portdet.data.records import Dataset, Finding, Report
from portdet.data.transforms import Table, fit, fit_boxes, normalisation, normalise
from portdet.data.workers import Extras, Workers
from portdet.errors import PortdetError
from portdet.session import Batch, EvalBatch

Float = NDArray[np.float32]


@dataclass(frozen=True)
class Task:
    """Images of one batch by their positions in the data set, and the side they get."""

    positions: tuple[int, ...]
    size: int
    epoch: int = 0
    augmented: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.positions), 3, self.size, self.size


@dataclass(frozen=True)
class TrainPreparer:
    """Fills training batches; a copy is in every worker."""

    dataset: Dataset
    augment: AugmentConfig
    max_boxes: int
    resize: str
    table: Table
    seed: int

    def __call__(self, task: Task, images: Float) -> Extras:
        """`images` (B, 3, S, S); returns boxes (B, T, 4), labels (B, T), valid (B, T), image ids (B,)."""
        count = len(task.positions)
        boxes = np.zeros((count, self.max_boxes, 4), np.float32)
        labels = np.zeros((count, self.max_boxes), np.int32)
        valid = np.zeros((count, self.max_boxes), bool)
        ids = np.zeros(count, np.int64)
        for i, position in enumerate(task.positions):
            ids[i] = self.dataset.records[position].image_id
            found, classes = self._image(task, position, images[i])
            boxes[i, : len(found)], labels[i, : len(found)], valid[i, : len(found)] = found, classes, True
        return boxes, labels, valid, ids

    def _image(self, task: Task, position: int, out: Float) -> tuple[Float, NDArray[np.int32]]:
        record = self.dataset.records[position]
        image = self.dataset.read(record)
        rng = generator(self.seed, task.epoch, position, "augment")
        if task.augmented:
            done = augment(image, record.boxes, task.size, self.augment, self.max_boxes, rng)
            normalise(done.image, self.table, out)
            return done.boxes, record.labels[done.kept]
        normalise(fit(image, task.size, self.resize), self.table, out)
        boxes = fit_boxes(record.boxes, record.width, record.height, task.size, self.resize)
        kept = rng.permutation(len(boxes))[: self.max_boxes] if len(boxes) > self.max_boxes else np.arange(len(boxes))
        kept = kept[over_one_pixel(boxes[kept])]
        return boxes[kept], record.labels[kept]


@dataclass(frozen=True)
class EvalPreparer:
    """Fills validation batches."""

    dataset: Dataset
    resize: str
    table: Table

    def __call__(self, task: Task, images: Float) -> Extras:
        """`images` (B, 3, S, S); returns image ids (B,) and original sizes (B, 2), width first."""
        records = [self.dataset.records[position] for position in task.positions]
        for i, record in enumerate(records):
            if i and task.positions[i] == task.positions[i - 1]:
                images[i] = images[i - 1]
            else:
                normalise(fit(self.dataset.read(record), task.size, self.resize), self.table, images[i])
        ids = np.array([r.image_id for r in records], np.int64)
        return ids, np.array([(r.width, r.height) for r in records], np.int64)


class _Loader:
    _workers: Workers

    def close(self) -> None:
        """End the worker processes."""
        self._workers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class TrainLoader(_Loader):
    """Training batches of one process (`rank` of `world`). `report` counts what is left out, and why.

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
        self.report = Report()
        self.report.count(Finding.LEFT_OVER, number=max(len(dataset) - self.steps_per_epoch * data.batch, 0))
        _check_limit(dataset, data.max_boxes, data.too_many_boxes, self.report)
        self._dataset, self._config, self._seed = dataset, config, seed
        self._rank, self._world, self._scores, self._noise_shape = rank, world, scores, noise
        self._sizes = tuple(data.sizes) or (data.imgsz,)
        preparer = TrainPreparer(dataset, config.augment, data.max_boxes, data.resize, normalisation(mean, std), seed)
        largest = data.batch // world * 3 * max(self._sizes) ** 2
        self._workers = Workers(preparer, data.workers, largest)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` (from 0), from `start_step` on. Starting another epoch ends this one."""
        for task, images, (boxes, labels, valid, ids) in self._workers.run(self._tasks(epoch, start_step)):
            for position in np.flatnonzero(~valid.any(1)):
                self.report.count(Finding.ALL_LOST, self._dataset.records[task.positions[position]].name)
            scores = valid.astype(np.float32) if self._scores else None
            yield Batch(images, boxes, labels, valid, ids, scores, self._noise(task))

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
            yield Task(positions, size, epoch, augmented)


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


def _check_limit(dataset: Dataset, limit: int, policy: str, report: Report) -> None:
    """More boxes than the limit, found before the first step: an error, or counted as dropped in each epoch."""
    over = [record for record in dataset.records if len(record.labels) > limit]
    if over and policy == "error":
        most = max(len(record.labels) for record in over)
        raise PortdetError(
            f"{len(over[0].labels)} boxes, the limit is {limit}; {len(over)} images have more, up to {most}",
            where=over[0].name,
            fix=f"set data.max_boxes={most}, or data.too_many_boxes=drop",
        )
    for record in over:
        report.count(Finding.OVER_LIMIT, record.name, len(record.labels) - limit)
