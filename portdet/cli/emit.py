"""`portdet emit`: a model as one standalone source file."""

from __future__ import annotations

from pathlib import Path

import click

from portdet.cli.options import ConfigCommand
from portdet.console import say


@click.command(cls=ConfigCommand, keys=("backend",))
@click.argument("config")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write; standard output without it.")
def command(config: str, output: Path | None, overrides: tuple[str, ...]) -> None:
    """Write the model of CONFIG as source of one framework; it runs without portdet.

    \b
    portdet emit yolov3_coco --backend mindspore -o model.py
    """
    from portdet.backends import load_backend, source_text
    from portdet.cli.model import detector_of
    from portdet.config import load, read_files
    from portdet.files import distinct, write_text

    values = load(config, overrides)
    distinct({"--output": output}, read_files(config))
    target = load_backend(values.train.backend).target
    detector = detector_of(values)
    text = source_text(detector, target)
    if output is None:
        say(text, nl=False)
        return
    write_text(output, text)
    say(f"{output}: class {detector.graph.class_name}, {len(text.splitlines())} lines", err=True)
