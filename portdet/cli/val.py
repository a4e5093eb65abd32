"""`portdet val`: score trained weights."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import click

from portdet.cli.options import ConfigCommand, Number
from portdet.console import say


@click.command(cls=ConfigCommand, keys=("backend", "device", "mode", "imgsz", "conf", "nms", "save_json", "evaluator"))
@click.argument("run")
@click.option(
    "--weights", type=click.Path(path_type=Path), help="Weights of any format; a run folder's best if left out."
)
@click.option("--min-ap", type=Number(0, 1), help="Exit with code 1 if AP is below this.")
def command(run: str, weights: Path | None, min_ap: float | None, overrides: tuple[str, ...]) -> None:
    """Score a RUN folder, or a configuration with --weights, on its validation set.

    \b
    portdet val runs/train/yolov3_scenes
    portdet val yolov3_coco --weights yolov3.weights --backend torch
    """
    from portdet.cli.runs import open_run, read_weights
    from portdet.console import console
    from portdet.data import open_dataset
    from portdet.errors import PortdetError
    from portdet.evaluate.coco_map import text
    from portdet.evaluate.validate import Validator, unscored
    from portdet.processes.alone import alone_in
    from portdet.report.scores import score_table
    from portdet.train.folder import describe, new_folder
    from portdet.train.job import model_of, session_of, write_validation

    config, path = open_run(run, weights, overrides)
    dataset = open_dataset(config.data, "val")
    for line in dataset.report.lines():
        say(f"val: {line}")
    if (why := unscored(dataset)) and not config.eval.save_json:
        raise PortdetError(why, fix="name annotations with boxes (data.val=FILE), or --save-json for detections alone")
    detector = model_of(config, dataset.names)
    arrays = read_weights(path, detector, transfer=False)
    t = config.train
    with (
        new_folder(t.project, "val", t.name, exist_ok=t.exist_ok, begun="metrics.json") as folder,
        alone_in(folder),
        ExitStack() as stack,
    ):
        describe(folder, config)
        session = session_of(config, detector, folder)
        stack.callback(session.close)
        validator = Validator(config, detector, dataset)
        stack.callback(validator.close)
        session.load_weights(arrays)
        with click.progressbar(length=len(dataset), label="validating") as bar:
            scores = validator.run(session, lambda *_: bar.update(config.data.val_batch))
        write_validation(folder, validator, dataset, config)
    if why:
        say(f"{why}; the detections are kept in detections.json")
    for table in [] if why else score_table(scores):
        console().print(table)
    say(f"see {folder}")
    if min_ap is not None and not scores.numbers["AP"] >= min_ap:
        raise PortdetError(f"AP {text(scores.numbers['AP'])} is below --min-ap {min_ap}")
