"""Epoch order, input sizes and random streams: golden values of mindspore-ai/models and of Random123."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portdet.data.order import _keys, batch_size, epoch_order, steps_per_epoch
from portdet.data.random import generator

SHAPES = range(320, 609, 32)


def test_first_epoch_is_the_samplers() -> None:
    assert epoch_order(16, 0).tolist() == [1, 6, 8, 9, 13, 4, 2, 14, 10, 7, 15, 11, 3, 0, 5, 12]


def test_sizes_are_the_originals() -> None:
    assert _keys(0)[:8].tolist() == [990, 797, 452, 120, 8, 93, 933, 966]
    golden = [576, 608, 480, 576, 416, 544, 576, 320, 448, 480, 352, 480, 448, 512, 320, 608]
    assert [batch_size(SHAPES, 0, step, count=1000) for step in range(16)] == golden
    # rate 4: the key moves once in four batches, so each of the first four sizes is held four times
    assert [batch_size(SHAPES, 0, step, count=1000, rate=4) for step in range(16)] == list(np.repeat(golden[:4], 4))
    # epoch 1 of 5 images at rate 2 starts at key ceil(5 / 2) = 3
    assert batch_size(SHAPES, 1, 0, count=5, rate=2) == golden[3]


def test_sizes_leave_the_global_generator_alone() -> None:
    import random

    random.seed(7)
    before = random.getstate()
    batch_size(SHAPES, 3, 5, count=11)
    assert random.getstate() == before


def test_seed_changes_order_and_sizes() -> None:
    assert epoch_order(50, 0, seed=1).tolist() != epoch_order(50, 0).tolist()
    assert epoch_order(50, 1, seed=1).tolist() != epoch_order(50, 0, seed=1).tolist()
    assert sorted(epoch_order(50, 2, seed=9)) == list(range(50))
    sizes = [[batch_size(SHAPES, 0, i, count=9, seed=seed) for i in range(20)] for seed in (0, 1)]
    assert sizes[0] != sizes[1]


@given(st.integers(1, 40), st.integers(0, 5), st.integers(1, 4), st.integers(1, 3))
def test_ranks_share_the_batches_of_one_process(count: int, epoch: int, world: int, each: int) -> None:
    alone = epoch_order(count, epoch)
    ranks = [epoch_order(count, epoch, rank=rank, world=world) for rank in range(world)]
    assert set(np.concatenate(ranks)) == set(range(count))
    assert len({len(r) for r in ranks}) == 1
    for step in range(count // (each * world)):
        together = np.concatenate([r[step * each : (step + 1) * each] for r in ranks])
        assert set(together) == set(alone[step * each * world : (step + 1) * each * world])


def test_padding_repeats_the_head() -> None:
    golden = [1, 6, 8, 9, 13, 4, 2, 14, 10, 7, 15, 11, 3, 0, 5, 12]
    assert epoch_order(16, 0, rank=2, world=3).tolist() == [golden[i] for i in (2, 5, 8, 11, 14)] + [golden[1]]
    assert steps_per_epoch(16, 6, world=3) == 3  # 6 images a rank, 2 a step
    assert steps_per_epoch(16, 5) == 3


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10 from the paper, in Python integers."""
    c, k, mask = list(counter), list(key), 2**64 - 1
    for _ in range(10):
        a, b = c[0] * 0xD2E7470EE14C6C93, c[2] * 0xCA5A826395121157
        c = [(b >> 64) ^ c[1] ^ k[0], b & mask, (a >> 64) ^ c[3] ^ k[1], a & mask]
        k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
    return c


def test_generator_is_philox_keyed_as_documented() -> None:
    # Random123's known answers hold the Python version
    assert philox([0] * 4, [0] * 2) == [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    ones = 2**64 - 1
    assert philox([ones] * 4, [ones] * 2) == [
        0x87B092C3013FE90B,
        0x438C3C67BE8D0224,
        0x9CC7D7C69CD777B6,
        0xA09CAEBF594F0BA0,
    ]
    # numpy counts before the first block
    raw = generator(5, 3, 17).bit_generator.random_raw(8)
    assert [int(v) for v in raw] == philox([1, 17, 3, 0], [5, 0]) + philox([2, 17, 3, 0], [5, 0])


@pytest.mark.parametrize("other", [(1, 0, 0, "a"), (0, 1, 0, "a"), (0, 0, 1, "a"), (0, 0, 0, "b"), (0, 0, 0)])
def test_streams_differ(other: tuple[int, int, int, str]) -> None:
    assert generator(*other).random() != generator(0, 0, 0, "a").random()
