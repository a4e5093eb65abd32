"""`portdet align`: the same detector on several backends, AP per epoch side by side."""

from __future__ import annotations

from pathlib import Path

import click

from portdet.cli.options import ConfigCommand


@click.command(
    cls=ConfigCommand, keys=("device", "mode", "epochs", "batch", "imgsz", "workers", "seed", "project", "name")
)
@click.argument("config")
@click.option(
    "--backends", default="torch,mindspore,paddle", show_default=True, help="Comma-separated; first: reference."
)
@click.option("--margin", type=float, default=0.1, show_default=True, help="Largest difference of the final AP50.")
@click.option("--initial", type=click.Path(path_type=Path), help="Initial weights; drawn from the seed if left out.")
def command(config: str, backends: str, margin: float, initial: Path | None, overrides: tuple[str, ...]) -> None:
    """Train CONFIG on each backend, in a process of its own, from the same weights on the same batches.

    Prints AP per epoch side by side and writes align.html, align.json, align.md and a picture.

    Exit code: 0 passed by the rule it prints, 1 different, 3 a backend could not run.

    \b
    portdet align yolov3_scenes
    portdet align yolov3_bccd --backends torch,paddle epochs=5
    """
    from portdet.align.job import AlignJob
    from portdet.backends import load_backend
    from portdet.config import load
    from portdet.console import console
    from portdet.report.align_tables import console_table
    from portdet.train.folder import run_folder

    values = load(config, overrides)
    names = [name.strip() for name in backends.split(",") if name.strip()]
    for name in names:
        load_backend(name)
    folder = run_folder(values.train.project, "align", values.train.name, exist_ok=values.train.exist_ok).resolve()
    job = AlignJob(values, names, folder, margin, say=click.echo, weights=initial)
    result = job.run()
    console().print(console_table(result))
    for check in result.checks:
        click.echo(f"{'ok    ' if check.passed else 'FAILED'} {check.name}: {check.detail}")
    click.echo(f"rule: {result.rule_text}")
    click.echo(f"report: {folder / 'align.html'}")
    for name, lines in job.crashed.items():
        click.echo(f"{name} could not run:\n{lines}", err=True)
    if job.crashed:
        raise SystemExit(3)
    raise SystemExit(0 if result.passed else 1)
