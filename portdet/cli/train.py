"""`portdet train`: train a detector on one backend."""

from __future__ import annotations

from pathlib import Path

import click

from portdet.cli.options import ConfigCommand

KEYS = ("backend", "device", "mode", "epochs", "batch", "imgsz", "workers", "pretrained", "name", "project", "seed")


@click.command(cls=ConfigCommand, keys=KEYS)
@click.argument("config", required=False)
@click.option("--resume", type=click.Path(path_type=Path), help="Run folder to continue, bit for bit.")
@click.option("--folder", type=click.Path(path_type=Path), help="Write into this folder, not into runs/train/NAME.")
@click.option(
    "--initial", type=click.Path(path_type=Path), help="Whole initial weights, strictly by name.", hidden=True
)
def command(
    config: str | None, resume: Path | None, folder: Path | None, initial: Path | None, overrides: tuple[str, ...]
) -> None:
    """Train the detector of CONFIG; everything goes into runs/train/NAME.

    \b
    portdet train yolov3_scenes --backend mindspore epochs=20
    portdet train yolov3_coco --pretrained darknet53.conv.74 --device cuda
    portdet train --resume runs/train/yolov3_scenes
    """
    from portdet.config import load
    from portdet.data import open_dataset
    from portdet.errors import PortdetError
    from portdet.train.folder import run_folder
    from portdet.train.job import TrainJob, model_of

    if resume is not None:
        if config is not None:
            raise PortdetError("CONFIG and --resume exclude each other", fix="the run folder knows its configuration")
        if not (resume / "args.yaml").is_file():
            raise PortdetError(f"{resume} is no run folder: it has no args.yaml", fix="name a folder of runs/train")
        values = load(str(resume / "args.yaml"), overrides)
        outcome = TrainJob(values, resume, resume=True).run()
        folder = resume
    else:
        if config is None:
            raise click.UsageError("CONFIG is missing (a file, or a name that `portdet show configs` lists)")
        values = load(config, overrides)
        arrays = None
        if path := initial or (Path(values.train.pretrained) if values.train.pretrained else None):
            from portdet.cli.runs import read_weights

            detector = model_of(values, open_dataset(values.data, "train").names)
            arrays = read_weights(path, detector, transfer=initial is None)
        t = values.train
        folder = folder or run_folder(t.project, "train", t.name, exist_ok=t.exist_ok)
        folder.mkdir(parents=True, exist_ok=True)
        outcome = TrainJob(values, folder, weights=arrays).run()
    best = f", best AP {outcome.best:.3f} in epoch {outcome.best_epoch + 1}" if outcome.best_epoch >= 0 else ""
    click.echo(f"{outcome.reason} after {outcome.epochs} epochs, {outcome.steps} steps{best}; see {folder}")
