"""Configurations, run folders and weight files, as commands name them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from portdet.config import Config, find, load, resolved
from portdet.console import say
from portdet.errors import PortdetError, nearest
from portdet.models import Detector
from portdet.models.registry import check
from portdet.outside import file_name, parse_json, plain, shown
from portdet.session import Arrays

WEIGHTS = {".safetensors", ".pth", ".pt", ".ckpt", ".pdparams", ".npz", ".weights", ".74", ".23"}
"""Suffixes of weight files, darknet's cut ones (darknet53.conv.74) included."""


def open_run(target: str, weights: Path | None, overrides: Sequence[str]) -> tuple[Config, Path]:
    """A run folder (its args.yaml and best weights), a weights file of a run, or a configuration with --weights ->
    both, checked."""
    path = Path(target)
    if os.path.isfile(path) and path.suffix in WEIGHTS:
        if weights is not None:
            raise PortdetError(
                f"two weights files: {path} and --weights {weights}", fix="name one, or a configuration with --weights"
            )
        config, weights = _config_of(path, overrides), path
    elif os.path.isdir(path):
        config, weights = _run(path, weights, overrides)
    else:
        if weights is None:
            found = _found(target)
            raise PortdetError(
                f"no weights given for the configuration {plain(str(found))}",
                fix="add --weights FILE, or name a run folder or its weights instead",
            )
        _there(weights)
        config = load(target, tuple(overrides))
    check(config)
    say_alone(config)
    return config, weights


def _run(folder: Path, weights: Path | None, overrides: Sequence[str]) -> tuple[Config, Path]:
    if not os.path.isfile(folder / "args.yaml"):
        raise PortdetError(f"{folder} is no run folder: it has no args.yaml", fix="name a folder of `portdet train`")
    best, last = (folder / "weights" / f"{name}.safetensors" for name in ("best", "last"))
    if weights is None and not os.path.isfile(best):
        fix = f"--weights {last}: as they are now" if os.path.isfile(last) else "train it: portdet train --resume"
        raise PortdetError(f"{folder} has no best weights: no epoch of it was scored", fix=fix)
    return load(str(folder / "args.yaml"), tuple(overrides), alone=True), _there(weights or best)


def _there(weights: Path) -> Path:
    if not os.path.isfile(weights):
        raise PortdetError(
            f"no weights at {weights}", fix="check the path; `portdet weights show FILE` reads any format"
        )
    return weights


def _found(target: str) -> Path:
    """The configuration of that name, or an error that knows what else could have been meant."""
    try:
        return find(target)
    except PortdetError as error:
        parent, fix = Path(target).parent, error.fix
        if parent != Path() and os.path.isdir(parent):
            there = [entry.name for entry in parent.iterdir() if entry.is_dir() or entry.suffix in WEIGHTS]
            fix = f"in {plain(str(parent))}: {nearest(Path(target).name, there)}" if there else fix
        raise PortdetError(f"no run folder, weights file or configuration {shown(target)}", fix=fix) from None


def _config_of(path: Path, overrides: Sequence[str]) -> Config:
    """The configuration that a weights file was trained with: of the run it lies in, or the one written into it."""
    place = Path(os.path.abspath(path)).parent
    for folder in (place, place.parent):
        if os.path.isfile(folder / "args.yaml"):
            say(f"with the configuration of the run {plain(str(folder))}")
            return load(str(folder / "args.yaml"), tuple(overrides), alone=True)
    values = _written_into(path)
    if values is None:
        raise PortdetError(
            f"no configuration for {plain(str(path))}: it lies in no run folder, and none is written into it",
            fix=f"name it: CONFIG --weights {plain(str(path))}",
        )
    say("with the configuration that is written into the file")
    config = resolved(values, overrides, plain(str(path)))
    config.train.name = config.train.name or file_name(path.stem, "the file's name", fix="set train.name")
    return config


def _written_into(path: Path) -> dict[str, Any] | None:
    """The `config` of portdet's own remark: sections, or of a state 'section.key' alone; None where there is none."""
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("portdet", "{}")
    except (SafetensorError, OSError) as error:
        raise PortdetError(f"not a complete safetensors file: {plain(str(error))}", where=plain(str(path))) from None
    about = parse_json(text, plain(str(path)))
    config = about.get("config") if isinstance(about, dict) else None
    if not isinstance(config, dict) or not config:
        return None
    if any(isinstance(value, dict) for value in config.values()):
        return config
    values: dict[str, Any] = {}
    for key, value in config.items():
        section, _, name = key.partition(".")
        values.setdefault(section, {})[name] = value
    return values


def say_alone(config: Config) -> None:
    """Where several devices are named: only `portdet train` takes them."""
    if (devices := config.train.devices) > 1:
        say(f"on one device: train.devices={devices} is for `portdet train`", err=True)


def read_weights(path: Path, detector: Detector, *, transfer: bool) -> Arrays:
    """Weights of any format under the detector's canonical names; prints what was loaded and what was not.

    transfer: a backbone alone may do, and head tensors of another class count are skipped, named and counted.
    """
    from portdet_convert.load import load_canonical

    shapes = {name: info.shape for name, info in detector.graph.weights().items()}
    arrays, report = load_canonical(path, shapes, allow_misshapen=detector.head if transfer else ())
    if not transfer and report.missing:
        raise PortdetError(f"{path} lacks {len(report.missing)} weights, first '{report.missing[0]}'")
    for line in report.lines():
        say(line)
    fields = detector.fields
    if report.naming == "ppdet" and fields.name == "yolov3" and fields.profile != "ppdet":
        say(f"PaddleDetection's weights in model.profile={fields.profile}: they were trained in profile ppdet")
    return arrays
