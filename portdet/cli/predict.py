"""`portdet predict`: find objects in images."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from portdet.cli.options import ConfigCommand, Number
from portdet.console import say


@click.command(cls=ConfigCommand, keys=("backend", "device", "mode", "imgsz", "conf", "nms", "name", "project"))
@click.argument("run")
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--weights", type=click.Path(path_type=Path), help="Weights of any format; a run folder's best if left out."
)
@click.option(
    "--score", type=Number(0, 1), default=0.25, show_default=True, help="Smallest score that is drawn and listed."
)
def command(run: str, images: tuple[Path, ...], weights: Path | None, score: float, overrides: tuple[str, ...]) -> None:
    """Detect objects in IMAGES (files or folders) with a RUN folder's weights; drawings and predictions.json.

    \b
    portdet predict runs/train/yolov3_scenes photo.jpg folder/
    """
    from portdet.cli.runs import open_run, read_weights
    from portdet.data import open_dataset
    from portdet.predict import image_files, predict_images
    from portdet.processes.alone import alone_in
    from portdet.train.folder import describe, new_folder
    from portdet.train.job import model_of, session_of

    config, path = open_run(run, weights, overrides)
    files, left = image_files(images)
    for line in left:
        say(line, err=True)
    names = tuple(config.data.names) or open_dataset(config.data, "val").names
    detector = model_of(config, names)
    arrays = read_weights(path, detector, transfer=False)
    t = config.train
    with (
        new_folder(t.project, "predict", t.name, exist_ok=t.exist_ok, begun="*.jpg") as folder,
        alone_in(folder),
        ExitStack() as stack,
    ):
        describe(folder, config)
        session = session_of(config, detector, folder)
        stack.callback(session.close)
        session.load_weights(arrays)
        with click.progressbar(length=len(files), label="predicting") as bar:
            counts, skipped, cut = predict_images(config, detector, session, files, names, folder, score, bar.update)
    for name, count in counts.items():
        say(f"{name}: {count}")
    for line in cut:
        say(line, err=True)
    for line in skipped:
        say(f"skipped {line}", err=True)
    say(f"{len(files) - len(skipped)} images, {len(skipped)} skipped; see {folder}")
    if skipped:
        raise SystemExit(1)
