"""Reader of `tests/oracles`: what programs that are not ours computed. Its README.md says which, and the format."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

FOLDER = Path(__file__).parent / "oracles"
THIN = 5
"""Large tensors that are compared value by value are kept at every fifth place of their flat order. 5 divides none of
their inner sizes (powers of two, 9 for a kernel), so that every channel, row and column is met."""


def unpack(folder: Path) -> Path:
    """A copy of the bundles in `folder`, the programs' own files among them, unpacked from files.tar.xz (14 MB)."""
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.tar.xz"))
    with tarfile.open(FOLDER / "files.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def sha(array: Array) -> str:
    """The first 16 digits of SHA-256 of the values, as the bundles state it."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def drawn(tag: str, name: str, shape: tuple[int, ...], mean: float, std: float) -> Array:
    """A tensor by the bundles' formula, float32: mean + std z, z standard normal numbers of numpy's legacy generator
    (whose numbers do not change between versions), seeded by the CRC-32 of 'tag:name' without its top bit."""
    seed = zlib.crc32(f"{tag}:{name}".encode()) & 0x7FFF_FFFF
    values: Array = mean + std * np.random.RandomState(seed).standard_normal(shape)
    return values.astype(np.float32)


def listed(bundle: Path) -> list[dict[str, Any]]:
    """Entries of weights.json: name, shape, mean, std, sha."""
    found: list[dict[str, Any]] = json.loads((bundle / "weights.json").read_text(encoding="utf-8"))["params"]
    return found


def weights(bundle: Path, beginning: str = "") -> Arrays:
    """Tensors of a bundle under its program's names: those of weights.json by formula, checked, then buffers.npz."""
    tag = json.loads((bundle / "weights.json").read_text(encoding="utf-8"))["tag"]
    entries = [entry for entry in listed(bundle) if entry["name"].startswith(beginning)]
    found = {e["name"]: drawn(tag, e["name"], tuple(e["shape"]), e["mean"], e["std"]) for e in entries}
    wrong = [entry["name"] for entry in entries if sha(found[entry["name"]]) != entry["sha"]]
    assert wrong == [], f"{bundle}: not the values that its program was given: {wrong}"
    with np.load(bundle / "buffers.npz") as buffers:
        return found | {name: buffers[name] for name in buffers.files if name.startswith(beginning)}


def places(got: Array, kept: Array) -> Array:
    """The values of `got` that a bundle keeps as `kept`: all of the same shape, or every fifth."""
    if got.shape == kept.shape:
        return got
    flat: Array = got.reshape(-1)[::THIN]
    assert flat.shape == kept.shape, f"{got.shape} is not what {kept.shape} was kept of"
    return flat


def first(got: Array, kept: Array) -> Array:
    """The part of a kept tensor that belongs to `got`, which is its first images alone."""
    return kept[: len(got) if got.ndim == kept.ndim else len(got.reshape(-1)[::THIN])]


def near(got: Array, want: Array, tolerance: float) -> None:
    """Largest difference as a share of the largest value: what float32 sums of both signs can be held to."""
    assert np.abs(places(got, want) - want).max() <= tolerance * np.abs(want).max()
