"""Checkpoints: safetensors files with everything a later step depends on, and a JSON text that says where it stopped.

`weights/last.safetensors` holds the whole state of the session ('weights/<name>', 'momentum/<name>', 'ema/<name>')
and a `Progress`; `weights/best.safetensors` holds the evaluated weights alone, under their canonical names, for
inference.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field, TypeAdapter
from safetensors import SafetensorError, safe_open

import portdet
from portdet import tensors
from portdet.config import Config
from portdet.errors import PortdetError, nearest
from portdet.outside import checked, parse_json, plain, shown
from portdet.session import Array, Arrays
from portdet.train.loss_scale import LossScale

FORMAT = 1
_METADATA_KEY = "portdet"

# Keys that may differ between the two halves of a resumed run: they change where it runs and what it writes, not its
# numbers (another backend or device gives the same numbers up to rounding).
_FREE = {
    *(f"train.{key}" for key in ("max_steps", "patience", "save_period", "log_every", "project", "name", "exist_ok")),
    *(f"train.{key}" for key in ("backend", "device", "devices", "mode", "threads", "pretrained")),
    *("data.workers", "data.root", "eval.save_json"),
}


Count = Annotated[int, Field(strict=True, ge=0, lt=2**53)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_SCALE = TypeAdapter(LossScale)


def _scale(values: dict[str, Any]) -> dict[str, Any]:
    _SCALE.validate_python(values)
    return values


@dataclass
class Progress:
    """Where a run stands: a JSON value beside the arrays.

    `epoch` counts from 0; `epoch_step` steps of it are done (all of them: trained, not yet validated). `loss_sums` add
    up the losses of the `loss_count` steps of this epoch that were not skipped. `best` is the best AP, of epoch
    `best_epoch` (-1: none yet), and `stale` the validations since.
    """

    epoch: Count = 0
    epoch_step: Count = 0
    step: Count = 0
    ema_updates: Count = 0
    loss_scale: Annotated[dict[str, Any], AfterValidator(_scale)] = field(default_factory=dict)
    loss_sums: dict[str, Number] = field(default_factory=dict)
    loss_count: Count = 0
    best: Number = 0.0
    best_epoch: Annotated[int, Field(strict=True, ge=-1)] = -1
    stale: Count = 0
    seconds: Annotated[Number, Field(ge=0)] = 0.0
    steps_per_epoch: Count = 0
    config: dict[str, Any] = field(default_factory=dict)
    config_hash: str = ""
    version: str = portdet.__version__
    format: Count = FORMAT

    def contradictions(self) -> list[str]:
        """Which of the counters cannot all be true, in words."""
        done, spe = self.epoch * self.steps_per_epoch + self.epoch_step, self.steps_per_epoch
        ages = max(self.epoch + 1, self.best_epoch + 1)
        return [
            *([f"step {self.step} is not epoch {self.epoch} * {spe} + {self.epoch_step}"] if done != self.step else []),
            *([f"step {self.epoch_step} of an epoch of {spe}"] if self.epoch_step > spe else []),
            *([f"losses of {self.loss_count} of {self.epoch_step} steps"] if self.loss_count > self.epoch_step else []),
            *([f"{self.ema_updates} updates in {self.step} steps"] if self.ema_updates > self.step else []),
            *([f"best in epoch {self.best_epoch} of {self.epoch}"] if self.best_epoch > self.epoch else []),
            *([f"{self.stale} validations in {ages} epochs"] if self.stale > ages else []),
        ]


@dataclass
class _Version:
    format: Count
    version: Annotated[str, Field(strict=True, max_length=40)]


_PROGRESS, _METADATA, _VERSION = TypeAdapter(Progress), TypeAdapter(dict[str, Any]), TypeAdapter(_Version)
DAMAGED = "the file is damaged or not portdet's: take an earlier checkpoint, or start from its weights with `convert`"


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
            f"{path} holds no state to resume from ({shown(min(unknown))})", fix="resume from last.safetensors"
        )
    progress = checked(_PROGRESS, metadata, f"{path}: progress", DAMAGED)
    if wrong := progress.contradictions() if progress.steps_per_epoch else []:
        raise PortdetError(f"the progress contradicts itself: {wrong[0]}", where=str(path), fix=DAMAGED)
    return arrays, progress


def save_weights(path: Path, weights: Mapping[str, Array], about: Mapping[str, Any]) -> None:
    """Write weights for inference under their canonical names. `about`: epoch, step, metrics, the config, and which
    weights they are: 'raw' or the EMA's kind, with its updates and what the shadow was divided by."""
    _save(path, weights, {"format": FORMAT, "version": portdet.__version__, **about})


def load_weights(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Weights under canonical names and what the file says about them; from a whole state, its raw weights."""
    arrays, metadata = _load(path)
    stripped = {name.removeprefix("weights/"): value for name, value in arrays.items() if name.startswith("weights/")}
    return stripped or arrays, metadata


@dataclass
class _About:
    """What `held` reads of a file's metadata; 'weights' is in files for inference alone."""

    step: Count
    config: dict[str, Any] = field(default_factory=dict)
    ema_updates: Count | None = None
    weights: Annotated[str, Field(strict=True, max_length=40)] = ""
    ema_correction: Number | None = None


def held(remark: str) -> str:
    """Which weights a file holds, in words, from what portdet wrote into it; '' for another program's text."""
    try:
        about = checked(TypeAdapter(_About), parse_json(remark, ""), "")
    except PortdetError:
        return ""
    after = f"after {about.step} steps"
    if not about.weights:
        kind, updates = about.config.get("ema.kind"), about.ema_updates
        if kind is None or updates is None:
            return ""
        shadow = f", and the shadow of the EMA ({plain(str(kind)[:40])}, {updates} updates), not divided"
        return f"state of training {after}: raw weights{shadow if kind != 'none' else ''}"
    if about.weights == "raw":
        return f"raw weights {after}"
    updates, divisor = about.ema_updates, about.ema_correction
    if updates is None or divisor is None:
        return ""
    return f"EMA of the weights ({plain(about.weights)}, {updates} updates, divided by {divisor:.9g}) {after}"


def check_names(found: Mapping[str, Array], expected: Mapping[str, Array], path: Path) -> None:
    """Raise unless `found` has exactly the names and shapes of `expected`; the first that differs is named."""
    for name in expected.keys() - found.keys():
        raise PortdetError(f"{shown(name)} is missing", where=str(path), fix=nearest(name, found))
    for name in found.keys() - expected.keys():
        raise PortdetError(f"{shown(name)} is unexpected", where=str(path), fix=nearest(name, expected))
    for name, value in expected.items():
        if found[name].shape != value.shape:
            raise PortdetError(f"'{name}' has shape {found[name].shape}, the model {value.shape}", where=str(path))


def check_resumable(progress: Progress, config: Config, steps_per_epoch: int, path: Path) -> None:
    """Raise where the run that goes on is not the one that stopped: another configuration or another data set."""
    now = config_values(config)
    for key in sorted(now.keys() | progress.config.keys()):
        was, wanted = progress.config.get(key), now.get(key)
        if was != wanted:
            raise PortdetError(
                f"{shown(key)[1:-1]} was {shown(was)} and is {shown(wanted)}: not the same training",
                where=str(path),
                fix=f"resume without changing {shown(key)[1:-1]}, or start a new run with train.pretrained={path}",
            )
    if progress.steps_per_epoch != steps_per_epoch:
        raise PortdetError(
            f"an epoch had {progress.steps_per_epoch} steps and has {steps_per_epoch}: the training set has changed",
            where=str(path),
            fix=f"restore the data, or start a new run with train.pretrained={path}",
        )


def _save(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    tensors.write(path, arrays, {_METADATA_KEY: json.dumps(metadata)})


def _load(path: Path) -> tuple[Arrays, dict[str, Any]]:
    if not os.path.isfile(path):
        raise PortdetError(f"no checkpoint {path}", fix="give the run's folder or a .safetensors file in its weights/")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise PortdetError(f"not a complete safetensors file: {error}", where=str(path)) from None
    if text is None:
        raise PortdetError("not written by portdet: no metadata", where=str(path), fix="use portdet convert first")
    metadata = checked(_METADATA, parse_json(text, str(path), DAMAGED), f"{path}: metadata", DAMAGED)
    written = checked(_VERSION, metadata, f"{path}: metadata", DAMAGED)
    if written.format > FORMAT:
        raise PortdetError(
            f"checkpoint format {written.format} of portdet {written.version}; this is {portdet.__version__}",
            where=str(path),
            fix="update portdet",
        )
    return arrays, metadata
