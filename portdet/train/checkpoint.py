"""Checkpoints: safetensors files with everything a later step depends on, and a JSON text that says where it stopped.

`weights/last.safetensors` holds the whole state of the session ('weights/<name>', 'momentum/<name>', 'ema/<name>')
and a `Progress`; `weights/best.safetensors` holds the evaluated weights alone, under their canonical names, for
inference.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

import portdet
from portdet.config import Config
from portdet.errors import PortdetError, nearest
from portdet.files import replacing
from portdet.session import Array, Arrays

FORMAT = 1
_METADATA_KEY = "portdet"

# Keys that may differ between the two halves of a resumed run: they change where it runs and what it writes, not its
# numbers (another backend or device gives the same numbers up to rounding).
_FREE = {
    *(f"train.{key}" for key in ("max_steps", "patience", "save_period", "log_every", "project", "name", "exist_ok")),
    *(f"train.{key}" for key in ("backend", "device", "devices", "mode", "threads", "pretrained")),
    *("data.workers", "data.root", "eval.save_json"),
}


@dataclass
class Progress:
    """Where a run stands: a JSON value beside the arrays.

    `epoch` counts from 0; `epoch_step` steps of it are done (all of them: trained, not yet validated). `loss_sums` add
    up the losses of the `loss_count` steps of this epoch that were not skipped. `best` is the best AP, of epoch
    `best_epoch` (-1: none yet), and `stale` the validations since.
    """

    epoch: int = 0
    epoch_step: int = 0
    step: int = 0
    ema_updates: int = 0
    loss_scale: dict[str, Any] = field(default_factory=dict)
    loss_sums: dict[str, float] = field(default_factory=dict)
    loss_count: int = 0
    best: float = 0.0
    best_epoch: int = -1
    stale: int = 0
    seconds: float = 0.0
    steps_per_epoch: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    config_hash: str = ""
    version: str = portdet.__version__
    format: int = FORMAT


def config_values(config: Config) -> dict[str, Any]:
    """The values that a resumed run must share with its first half, as 'section.key': value."""
    values: dict[str, Any] = {}
    for section, content in config.model_dump(mode="json").items():
        values |= {f"{section}.{key}": value for key, value in content.items() if f"{section}.{key}" not in _FREE}
    return values


def config_hash(config: Config) -> str:
    """SHA-256 of `config_values`: equal for runs that must give equal numbers."""
    return hashlib.sha256(json.dumps(config_values(config), sort_keys=True).encode()).hexdigest()


def save_state(path: Path, state: Mapping[str, Array], progress: Progress) -> None:
    """Write a resumable checkpoint. Non-finite weights are refused: they never replace a good checkpoint."""
    for name, value in state.items():
        if name.startswith("weights/") and not np.isfinite(value).all():
            raise PortdetError(
                f"step {progress.step}: {name} is not finite; {path.name} keeps its last good state",
                fix="lower optim.lr0, raise optim.warmup_epochs or set optim.clip_norm",
            )
    _save(path, state, asdict(progress))


def load_state(path: Path) -> tuple[Arrays, Progress]:
    """The arrays and the progress of a checkpoint written by `save_state`."""
    arrays, metadata = _load(path)
    if unknown := set(metadata) - {f.name for f in fields(Progress)}:
        raise PortdetError(
            f"{path} holds no state to resume from ({sorted(unknown)[0]})", fix="resume from last.safetensors"
        )
    return arrays, Progress(**metadata)


def save_weights(path: Path, weights: Mapping[str, Array], about: Mapping[str, Any]) -> None:
    """Write weights for inference under their canonical names. `about`: epoch, step, metrics, the config, and which
    weights they are: 'raw' or the EMA's kind, with its updates and what the shadow was divided by."""
    _save(path, weights, {"format": FORMAT, "version": portdet.__version__, **about})


def load_weights(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Weights under canonical names and what the file says about them; from a whole state, its raw weights."""
    arrays, metadata = _load(path)
    stripped = {name.removeprefix("weights/"): value for name, value in arrays.items() if name.startswith("weights/")}
    return stripped or arrays, metadata


def held(remark: str) -> str:
    """Which weights a file holds, in words, from what portdet wrote into it; '' for another program's text."""
    try:
        about = json.loads(remark)
        after = f"after {about['step']} steps"
        if "weights" not in about:
            kind, updates = about["config"]["ema.kind"], about["ema_updates"]
            shadow = f", and the shadow of the EMA ({kind}, {updates} updates), not divided" if kind != "none" else ""
            return f"state of training {after}: raw weights{shadow}"
        if about["weights"] == "raw":
            return f"raw weights {after}"
        return (
            f"EMA of the weights ({about['weights']}, {about['ema_updates']} updates, "
            f"divided by {about['ema_correction']:.9g}) {after}"
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


def check_names(found: Mapping[str, Array], expected: Mapping[str, Array], path: Path) -> None:
    """Raise unless `found` has exactly the names and shapes of `expected`; the first that differs is named."""
    for name in expected.keys() - found.keys():
        raise PortdetError(f"'{name}' is missing", where=str(path), fix=nearest(name, found))
    for name in found.keys() - expected.keys():
        raise PortdetError(f"'{name}' is unexpected", where=str(path), fix=nearest(name, expected))
    for name, value in expected.items():
        if found[name].shape != value.shape:
            raise PortdetError(f"'{name}' has shape {found[name].shape}, the model {value.shape}", where=str(path))


def check_resumable(progress: Progress, config: Config, steps_per_epoch: int, path: Path) -> None:
    """Raise where the run that goes on is not the one that stopped: another configuration or another data set."""
    now = config_values(config)
    for key in sorted(now.keys() | progress.config.keys()):
        if now.get(key) != progress.config.get(key):
            raise PortdetError(
                f"{key} was {progress.config.get(key)!r} and is {now.get(key)!r}: not the same training",
                where=str(path),
                fix=f"resume without changing {key}, or start a new run with train.pretrained={path}",
            )
    if progress.steps_per_epoch != steps_per_epoch:
        raise PortdetError(
            f"an epoch had {progress.steps_per_epoch} steps and has {steps_per_epoch}: the training set has changed",
            where=str(path),
            fix=f"restore the data, or start a new run with train.pretrained={path}",
        )


def _save(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    tensors = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    text = {_METADATA_KEY: json.dumps(metadata)}

    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, metadata=text)
        except SafetensorError as error:
            raise _as_os_error(error) from error


def _load(path: Path) -> tuple[Arrays, dict[str, Any]]:
    if not path.is_file():
        raise PortdetError(f"no checkpoint {path}", fix="give the run's folder or a .safetensors file in its weights/")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise PortdetError(f"not a complete safetensors file: {error}", where=str(path)) from None
    if text is None:
        raise PortdetError("not written by portdet: no metadata", where=str(path), fix="use portdet convert first")
    metadata = json.loads(text)
    if metadata["format"] > FORMAT:
        raise PortdetError(
            f"checkpoint format {metadata['format']} of portdet {metadata['version']}; this is {portdet.__version__}",
            where=str(path),
            fix="update portdet",
        )
    return arrays, metadata


def _as_os_error(error: SafetensorError) -> OSError:
    """safetensors reports errors of the system as text: '... (os error 28)'."""
    found = re.search(r"os error (\d+)", str(error))
    number = int(found[1]) if found else errno.EIO
    return OSError(number, os.strerror(number))
