"""Batch hashes: any single change is seen, and the hash is cheap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from portdet.train.fingerprint import batch_hash
from tests.train.fakes import batch


@pytest.mark.parametrize("size", [2, 64])
def test_every_change_is_seen(size: int) -> None:
    original = batch(0, 0, size)
    seen = {batch_hash(original)}
    flips = {(int(place), int(bit)) for place, bit in np.random.default_rng(0).integers((24, 32), size=(50, 2))}
    for place, bit in flips:
        images = original.images.copy()
        images.reshape(-1).view(np.uint32)[place] ^= np.uint32(1 << bit)
        seen.add(batch_hash(replace(original, images=images)))
    order = [1, 0]
    seen.add(batch_hash(replace(original, images=original.images[order])))
    seen.add(batch_hash(replace(original, image_ids=original.image_ids[order])))
    seen.add(batch_hash(replace(original, boxes=original.boxes + 1)))
    seen.add(batch_hash(replace(original, labels=original.labels + 1)))
    seen.add(batch_hash(replace(original, valid=~original.valid)))
    seen.add(batch_hash(replace(original, images=original.images.reshape(2, 3, size * 2, -1))))
    weighed = replace(original, scores=np.ones((2, 4), np.float32))
    noisy = replace(weighed, noise=np.ones((2, 3, 5), np.float32))
    other = replace(noisy, noise=np.ones((2, 3, 5), np.float32) - np.eye(2, 15, dtype=np.float32).reshape(2, 3, 5))
    seen |= {batch_hash(weighed), batch_hash(noisy), batch_hash(other)}
    assert len(seen) == 1 + len(flips) + 9


def test_equal_batches_equal_hashes_whatever_the_memory_order() -> None:
    one = batch(1, 2, 8)
    other = replace(one, images=np.asfortranarray(one.images))
    assert batch_hash(one) == batch_hash(other) == batch_hash(batch(1, 2, 8))
