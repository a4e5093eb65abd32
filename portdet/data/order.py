"""Which images make up a batch, and at which size: closed forms of (seed, epoch, step).

Both sequences are those of mindspore-ai/models' YOLOv3, bit for bit where the seed is 0.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SIZE_KEYS = 1_000_000


def epoch_order(count: int, epoch: int, *, seed: int = 0, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
    """Positions of the images that `rank` of `world` processes sees in `epoch` (from 0): (ceil(count / world),).

    DistributedSampler of mindspore-ai/models: a permutation by a Mersenne twister seeded with the epoch alone,
    filled up with its own head to a multiple of `world`, every `world`-th taken. A seed other than 0 joins the epoch in
    the twister's key. The ranks' batches of a step are together the batch of one process.
    """
    state = np.random.RandomState([seed, epoch] if seed else epoch)
    order = state.permutation(count)
    padded = np.resize(order, math.ceil(count / world) * world)
    return padded[rank::world].astype(np.int64)


def steps_per_epoch(count: int, batch: int, world: int = 1) -> int:
    """Full batches of `batch` images (over all processes); what does not fill one is left out."""
    return math.ceil(count / world) // (batch // world)


def batch_size(sizes: Sequence[int], epoch: int, step: int, *, count: int, rate: int = 1, seed: int = 0) -> int:
    """Side of the input for one batch; every rank draws the same.

    A list of a million numbers 1..1000 from seed 1234 (+ seed) gives a key for (epoch, step), and the key seeds the
    choice among `sizes`. `count`: images in the data set; `rate`: batches that share a size.
    """
    key = _keys(seed)[(epoch * math.ceil(count / rate) + step // rate) % SIZE_KEYS]
    return _choice(tuple(sizes), int(key))


@functools.cache
def _keys(seed: int) -> NDArray[np.int16]:
    draw = random.Random(1234 + seed).randint
    return np.array([draw(1, 1000) for _ in range(SIZE_KEYS)], np.int16)


@functools.cache
def _choice(sizes: tuple[int, ...], key: int) -> int:
    return random.Random(key).choice(sizes)
