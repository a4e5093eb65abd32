"""Configurations, run folders and weight files, as commands name them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from portdet.config import Config, load
from portdet.errors import PortdetError
from portdet.models import Detector
from portdet.session import Arrays


def open_run(target: str, weights: Path | None, overrides: Sequence[str]) -> tuple[Config, Path]:
    """A run folder (its args.yaml and best weights) or a configuration with --weights -> both, checked."""
    folder = Path(target)
    alone = os.path.isdir(folder)
    if alone:
        if not os.path.isfile(folder / "args.yaml"):
            raise PortdetError(
                f"{folder} is no run folder: it has no args.yaml", fix="name a folder of `portdet train`"
            )
        weights = weights or folder / "weights" / "best.safetensors"
        target = str(folder / "args.yaml")
    if weights is None:
        raise PortdetError("no weights given", fix="add --weights FILE, or name a run folder instead of CONFIG")
    if not os.path.isfile(weights):
        raise PortdetError(
            f"no weights at {weights}", fix="check the path; `portdet weights show FILE` reads any format"
        )
    config = load(target, tuple(overrides), alone=alone)
    say_alone(config)
    return config, weights


def say_alone(config: Config) -> None:
    """Where several devices are named: only `portdet train` takes them."""
    if (devices := config.train.devices) > 1:
        click.echo(f"on one device: train.devices={devices} is for `portdet train`", err=True)


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
        click.echo(line)
    return arrays
