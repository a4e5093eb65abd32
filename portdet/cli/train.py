"""`portdet train`: train a detector on one backend, on one device or several."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from portdet.cli.options import ConfigCommand
from portdet.console import say

if TYPE_CHECKING:
    from portdet.config import Config
    from portdet.ranks import Place

KEYS = ("backend", "device", "devices", "mode", "epochs", "batch", "imgsz", "workers", "pretrained", "name", "project",
        "seed")  # fmt: skip


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
    portdet train yolov3_coco --pretrained darknet53.conv.74 --device cuda --devices 8
    torchrun --nproc_per_node=8 -m portdet train yolov3_coco --device cuda
    portdet train --resume runs/train/yolov3_scenes
    """
    from portdet.backends import load_backend
    from portdet.cli.launch import as_rank, find_place, launch
    from portdet.config import load
    from portdet.errors import PortdetError
    from portdet.models.registry import check
    from portdet.processes.alone import alone_in
    from portdet.train.earlier import make_room
    from portdet.train.folder import made, new_folder

    if resume is not None:
        if config is not None:
            raise PortdetError("CONFIG and --resume exclude each other", fix="the run folder knows its configuration")
        if not os.path.isfile(resume / "args.yaml"):
            raise PortdetError(f"{resume} is no run folder: it has no args.yaml", fix="name a folder of runs/train")
        config, folder = str(resume / "args.yaml"), resume
    if config is None:
        raise click.UsageError("CONFIG is missing (a file, or a name that `portdet show configs` lists)")
    values = load(config, overrides, alone=resume is not None)
    check(values)
    t = values.train
    place = find_place(t.backend)
    with as_rank(place), ExitStack() as stack:
        if resume is None and place.first:
            run = new_folder(t.project, "train", t.name, exist_ok=t.exist_ok, begun="weights", given=folder)
            folder = stack.enter_context(run)
        if place.world == 1 < t.devices:
            assert folder is not None
            with alone_in(made(folder)):  # what would be refused is, before any rank starts
                if resume is None:
                    make_room(folder, exist_ok=t.exist_ok, say=say)
            words = ["--resume", str(resume)] if resume else [config, "--folder", str(folder)]
            words += ["--initial", str(initial)] if initial else []
            launch(load_backend(t.backend).launcher, t.devices, folder, ["train", *words, *overrides])
        else:
            train(values, folder or Path(), place, initial, resume=resume is not None)


def train(config: Config, folder: Path, place: Place, initial: Path | None, *, resume: bool) -> None:
    """This process's part of a training. folder: rank 0's, which tells the others."""
    from portdet.cli.runs import read_weights
    from portdet.data import open_dataset
    from portdet.processes.alone import alone_in
    from portdet.train.earlier import make_room, nothing_saved
    from portdet.train.folder import made
    from portdet.train.job import TrainJob, model_of

    with ExitStack() as stack:
        if place.first and resume:
            stack.enter_context(alone_in(folder))
        again = resume and nothing_saved(folder)
        if again and place.first:
            say(f"nothing of this run was saved yet: {folder} starts from its beginning")
        arrays = None
        path = initial or (Path(config.train.pretrained) if config.train.pretrained else None)
        if path and (again or not resume):
            detector = model_of(config, open_dataset(config.data, "train").names)
            arrays = read_weights(path, detector, transfer=initial is None)
        if place.first and not resume:
            stack.enter_context(alone_in(made(folder)))
            make_room(folder, exist_ok=config.train.exist_ok, say=say)
        job = TrainJob(config, folder, weights=arrays, resume=resume and not again, again=again, place=place)
        outcome = job.run()
    best = f", best AP {outcome.best:.3f} in epoch {outcome.best_epoch + 1}" if outcome.best_epoch >= 0 else ""
    say(f"{outcome.reason} after {outcome.epochs} epochs, {outcome.steps} steps{best}; see {job.folder}")
