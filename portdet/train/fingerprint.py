"""A short name for the content of a batch: equal batches, equal names, on every backend and machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from portdet.session import Array, Arrays, Batch

_LANES = 1024


def batch_hash(batch: Batch) -> str:
    """16 hex digits that any change of one value changes.

    Images are first folded, per image, into 1024 sums of 64-bit words (0.6 ms for 8 images of 416 pixels, where hashing
    every byte takes 9), and the sums, boxes, labels, masks and image numbers are hashed;
    so are scores, and noise folded, where they are.
    """
    digest = hashlib.blake2b(digest_size=8)
    digest.update(repr(batch.images.shape).encode())
    digest.update(_fold(batch.images))
    for part in (batch.boxes, batch.labels, batch.valid, batch.image_ids):
        digest.update(part.tobytes())
    if batch.scores is not None:
        digest.update(batch.scores.tobytes())
    if batch.noise is not None:
        digest.update(_fold(batch.noise))
    return digest.hexdigest()


def joint_hash(hashes: Sequence[str]) -> str:
    """One name for the shares of a batch, in rank order; of a single share its own."""
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.blake2b(" ".join(hashes).encode(), digest_size=8).hexdigest()


def weights_hash(weights: Arrays) -> str:
    """SHA-256 over names, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name} {weights[name].shape}".encode())
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()


def _fold(images: Array) -> bytes:
    """Sums modulo 2**64 of the words of each image, in 1024 lanes, and the bytes that fill no whole row of lanes."""
    octets = np.ascontiguousarray(images).reshape(len(images), -1).view(np.uint8)
    whole = octets.shape[1] // (8 * _LANES) * (8 * _LANES)
    words = np.ascontiguousarray(octets[:, :whole]).view(np.uint64).reshape(len(images), -1, _LANES)
    sums: Array = words.sum(axis=1, dtype=np.uint64)
    return sums.tobytes() + octets[:, whole:].tobytes()
