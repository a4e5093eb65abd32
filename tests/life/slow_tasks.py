"""Tasks for data workers: one whose answer is longer than a pipe holds, and one that takes its time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Task:
    number: int

    @property
    def shape(self) -> tuple[int, ...]:
        return 1, 1, 2, 2


def large(task: Any, images: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
    return (np.full(200_000, task.number, np.int64),)


def slow(task: Any, images: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
    time.sleep(5)
    return large(task, images)
