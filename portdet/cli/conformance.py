"""`portdet conformance`: whether a backend computes what it must."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from portdet.console import say


@click.command()
@click.option("--backend", required=True, metavar="NAME", help="torch, mindspore, paddle or another installed one.")
@click.option("--device", default="cpu", show_default=True, help="Where to try it: cpu, cuda, npu ...")
@click.option(
    "--mode", "modes", multiple=True, metavar="MODE", help="eager or compiled; may be repeated. Default: all."
)
@click.option("--section", "sections", multiple=True, help="One of those below; may be repeated.")
@click.option("--threads", type=click.IntRange(0, 4096), default=0, help="Threads of the framework; 0: all cores.")
@click.option("-v", "--verbose", "everything", is_flag=True, help="Print what passed, too, with how far it was off.")
@click.option("--json", "report", type=click.Path(path_type=Path), help="Write all rows to this file.")
@click.pass_context
def command(
    context: click.Context,
    backend: str,
    device: str,
    modes: tuple[str, ...],
    sections: tuple[str, ...],
    threads: int,
    everything: bool,
    report: Path | None,
) -> None:
    """Hold a backend against the checklist: every op and layer with its gradient, whole detectors, the train step.

    \b
    table       a text for every op and layer
    ops         each sample: value, type and gradient, against the reference in numpy
    sweep       elementwise ops at 100,000 places over all of float32, value and gradient
    reductions  sums, means and batch norm of up to 11.5 million values, off zero too
    layers      the same for convolutions, batch norm, deformable convolutions
    models      losses, predictions, activations, batch statistics and gradients of small detectors
    steps       momentum, decay, clip, loss scale, EMA, state, overflow, refusals: closed forms in numpy
    ranks       two processes against one on the same global batch, by the backend's launcher

    What a backend declares in `known_failures` may fail, and must not pass. Exit code 1 if anything else fails.

    \b
    portdet conformance --backend mindspore --mode compiled
    """
    from portdet.conformance.job import SECTIONS, Conformance, text
    from portdet.files import write_text

    job = Conformance(backend, device, modes, threads, sections or SECTIONS)
    rows = job.run(lambda line: say(line, err=True))
    if report is not None:
        write_text(report, json.dumps({"backend": backend, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    if lines := text(rows, everything=everything):
        say(lines)
    say(job.summary())
    context.exit(0 if job.passed else 1)
