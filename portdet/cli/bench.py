"""`portdet bench`: what portdet's training step costs beside the bare framework, backend by backend."""

from __future__ import annotations

import json
from typing import Any

import click

from portdet.cli.options import ConfigCommand
from portdet.console import say

TIMEOUT = 3600.0


@click.command(cls=ConfigCommand, keys=("device", "mode", "threads", "batch", "imgsz", "workers"))
@click.argument("config")
@click.option("--backend", "names", multiple=True, metavar="NAME", help="Only this backend; may be repeated.")
@click.option(
    "--steps",
    type=click.IntRange(1, 1_000_000),
    default=30,
    show_default=True,
    help="Timed steps of each variant, in five rounds.",
)
@click.option("--synthetic", is_flag=True, help="Train on drawn scenes of the input's size instead of CONFIG's data.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    config: str, names: tuple[str, ...], steps: int, synthetic: bool, as_json: bool, overrides: tuple[str, ...]
) -> None:
    """Time the training step of CONFIG on each backend, in a process of its own.

    \b
    bare     generated module, forward with loss, backward, the framework's own momentum SGD
    portdet  the same as `portdet train` does it: loader, EMA and logging included
    ratio    portdet over bare ± its standard error
    of best  the ratio of the quickest steps, which other work on the machine disturbs least
    EMA      a step with and without it, in turn, as a share of the step ± its standard error
    alone    the EMA's update by itself as a share of the step (on a CPU)

    \b
    portdet bench yolov3_coco --synthetic imgsz=320 batch=2
    """
    from portdet.backends import load_backend
    from portdet.bench.table import table
    from portdet.cli.runs import say_alone
    from portdet.config import load
    from portdet.processes.child import run_child
    from portdet.versions import FRAMEWORKS, framework

    values = load(config, overrides)
    say_alone(values)
    chosen = list(names) or [name for name in FRAMEWORKS if framework(name)]
    for name in chosen:
        load_backend(name)
    report: dict[str, Any] = {}
    for name in chosen:
        say(f"{name} ...", err=True)
        values.train.backend = name
        request = {"config": values.model_dump(mode="json"), "steps": steps, "synthetic": synthetic}
        report[name] = run_child("portdet.bench.measure", request, timeout=TIMEOUT)
    say(json.dumps(report, indent=2) if as_json else table(report))
