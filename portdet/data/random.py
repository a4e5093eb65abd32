"""Counter-based random numbers: what is drawn depends on who asks, never on who asked before."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(seed: int, epoch: int, index: int, *stream: int | str) -> np.random.Generator:
    """A Philox4x64-10 generator of its own for (seed, epoch, index, stream).

    Key (seed, stream), counter (0, index, epoch, 0): the lowest counter word runs through the draws, so two
    generators never overlap. `stream` names the purpose ("augment"); it is hashed to 64 bits, none gives 0.
    Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
    """
    word = 0
    if stream:
        text = "/".join(map(str, stream)).encode()
        word = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    key = np.array([seed, word], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, index, epoch, 0], np.uint64)))
