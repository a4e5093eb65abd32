"""From annotated images to the arrays of a batch: what a worker process does, for training and for validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from portdet.config import AugmentConfig
from portdet.data import augment_ppyolo as ppyolo
from portdet.data.augment import augment, over_one_pixel
from portdet.data.random import generator
from portdet.data.records import Dataset
from portdet.data.transforms import Table, fit, fit_boxes, normalise
from portdet.data.workers import Extras

Float = NDArray[np.float32]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Task:
    """Images of one batch by their positions in the data set, and the side they get."""

    positions: tuple[int, ...]
    size: int
    epoch: int = 0
    step: int = 0
    augmented: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.positions), 3, self.size, self.size


class Found(NamedTuple):
    """The boxes (k, 4) of a prepared image in its pixels, their labels (k,) and weights (k,)."""

    boxes: Float
    labels: Labels
    scores: Float


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
        """`images` (B, 3, S, S); returns boxes (B, T, 4), labels (B, T), scores (B, T), valid (B, T), image ids (B,),
        and how many boxes were found (B,), of which the first T are kept."""
        count = len(task.positions)
        boxes = np.zeros((count, self.max_boxes, 4), np.float32)
        labels = np.zeros((count, self.max_boxes), np.int32)
        scores = np.zeros((count, self.max_boxes), np.float32)
        valid = np.zeros((count, self.max_boxes), bool)
        ids = np.array([self.dataset.records[position].image_id for position in task.positions], np.int64)
        counts = np.zeros(count, np.int64)
        prepare = self._plain
        if task.augmented:
            prepare = self._ppyolo if self.augment.kind == "ppyolo" else self._yolov3
        for i, position in enumerate(task.positions):
            found = prepare(task, position, images[i])
            counts[i] = len(found.boxes)
            kept = min(len(found.boxes), self.max_boxes)
            boxes[i, :kept], labels[i, :kept], scores[i, :kept] = (values[:kept] for values in found)
            valid[i, :kept] = True
        return boxes, labels, scores, valid, ids, counts

    def _plain(self, task: Task, position: int, out: Float) -> Found:
        """The image as in validation."""
        record = self.dataset.records[position]
        normalise(fit(self.dataset.read(record), task.size, self.resize), self.table, out)
        boxes = fit_boxes(record.boxes, record.width, record.height, task.size, self.resize)
        kept = np.flatnonzero(over_one_pixel(boxes))
        if len(kept) > self.max_boxes:
            kept = self._chance(task, position).permutation(kept)
        return Found(boxes[kept], record.labels[kept], np.ones(len(kept), np.float32))

    def _yolov3(self, task: Task, position: int, out: Float) -> Found:
        record = self.dataset.records[position]
        image, rng = self.dataset.read(record), self._chance(task, position)
        done = augment(image, record.boxes, task.size, self.augment, self.max_boxes, rng)
        normalise(done.image, self.table, out)
        return Found(done.boxes, record.labels[done.kept], np.ones(len(done.kept), np.float32))

    def _ppyolo(self, task: Task, position: int, out: Float) -> Found:
        rng = self._chance(task, position)
        other, drawn = int(rng.integers(len(self.dataset))), ppyolo.draw(self.augment, rng)
        share = drawn.share if task.epoch < self.augment.mixup_epochs else 1.0
        # as the original: with a share of 1 or 0 it is one image alone, whose boxes have full weight
        shares = (position, share), (other, 1 - share)
        mixed = [(self.dataset.records[number], weight) for number, weight in shares if weight > 0]
        records = [record for record, _ in mixed]
        labels = np.concatenate([record.labels for record in records])
        scores = np.concatenate([np.full(len(record.labels), weight, np.float32) for record, weight in mixed])
        boxes = np.concatenate([record.boxes for record in records])
        width, height = ppyolo.extent(*((record.width, record.height) for record in records))
        where = ppyolo.place(drawn, width, height, boxes, self.augment)
        moved, kept = ppyolo.move_boxes(boxes, where, task.size)
        pixels = [self.dataset.read(record) for record in records]
        colour = ppyolo.colours(drawn, self.augment)
        normalise(ppyolo.paint(pixels, share, colour, where, task.size, self._method(task)), self.table, out)
        return Found(moved, labels[kept], scores[kept])

    def _chance(self, task: Task, position: int) -> np.random.Generator:
        return generator(self.seed, task.epoch, position, "augment")

    def _method(self, task: Task) -> int:
        """The interpolation of a batch, the same on every rank."""
        if not self.augment.random_interpolation:
            return ppyolo.LINEAR
        return int(generator(self.seed, task.epoch, task.step, "interpolation").integers(len(ppyolo.METHODS)))


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
