"""The command `portdet convert`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from portdet.config import load, read_files
from portdet.console import console, say
from portdet.errors import PortdetError
from portdet.files import distinct
from portdet.models.registry import fields_of, section_of
from portdet.outside import shown
from portdet_convert import checks, models, yolov3_cfg
from portdet_convert.cfg import beside
from portdet_convert.convert import SUFFIXES, read
from portdet_convert.convert import convert as convert_file
from portdet_convert.files import FORMATS
from portdet_convert.files.source import Arrays
from portdet_convert.proof import installed, prove
from portdet_convert.proof_model import Fit, fit
from portdet_convert.report import Report
from portdet_convert.rules import UnknownModel

_EXTENSION = {"darknet": ".weights", **{name: f".{name}" for name in FORMATS if name != "darknet"}}


def sizes_of(model: str | None) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """Depths and channels of a configuration's YOLOv3, None without a configuration or of another model."""
    if model is None:
        return None, None
    section = section_of(load(model))
    name = section.get("name")
    if type(name) is not str or name not in models.KNOWN:
        raise PortdetError(f"conversion is known for {', '.join(models.KNOWN)}, not for {shown(name)}", where=model)
    with checks.naming_file(model):
        return models.sizes(fields_of(section))


_NAMES_HELP = "Whose names the tensors get; those of the framework's generated model if left out."
_MODEL_HELP = "Configuration of the model: depths and width of a darknet file, activations of --check."


@click.command()
@click.argument("src", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write; SRC with the format's suffix.")
@click.option("--to", type=click.Choice(FORMATS), help="Format to write; told from the output's name if left out.")
@click.option("--names", type=click.Choice(models.PROGRAMS), help=_NAMES_HELP)
@click.option("--model", metavar="CONFIG", help=_MODEL_HELP)
@click.option("--cfg", type=click.Path(path_type=Path), help="darknet's .cfg of a darknet file: its layers.")
@click.option("--check", is_flag=True, help="Prove it: run the model with both files in every installed framework.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the report on every tensor there, as JSON.")
@click.option("--allow-nan", is_flag=True, help="Convert NaN, infinities and negative variances as they are.")
@click.option("-v", "--verbose", is_flag=True, help="Print the report on every tensor.")
def convert(
    src: Path, output: Path | None, model: str | None, check: bool, report: Path | None, verbose: bool, **options: Any
) -> None:
    """Convert weights between darknet, .ckpt, .pth, .pdparams, .safetensors and .npz.

    YOLOv3-DarkNet53 and PP-YOLO (r50vd_dcn, r18vd, v2, nano), whole or the backbone alone, are recognised by the names
    that darknet, mindspore-ai/models, PaddleDetection, miemiedetection or portdet's own models give them; --names
    writes them so. A file of another model keeps its names and values, and what frameworks lay out or call otherwise
    (the weight of a Linear, a batch norm's parts) is said. Every tensor of the file is converted, or counted as
    skipped for a stated reason. With --model the tensors must have the shapes of that model, but for output layers of
    another class count: those are named and converted as they are, and it is `portdet train CONFIG --pretrained FILE`
    that skips them.

    A darknet file holds numbers alone, no names and no shapes, and YOLOv3 only. Its layers are those of --cfg, else of
    --model, else of the .cfg that lies beside it (NAME.cfg beside NAME.weights, NAME_last.weights, NAME.conv.74), else
    of the published yolov3.cfg. A .cfg of any other network is an error that names the line. The output of ImageNet's
    classifier (darknet53.weights) is skipped by name.

    --check reads the new file back (by each framework's own loader too) before it is put in place, and compares the
    outputs of the model with the weights from before and after. What differs in one bit is an error, and no file is
    written.

    \b
    portdet convert darknet53.conv.74 -o darknet53.ckpt --check
    portdet convert yolov3.pdparams --to pth
    portdet convert yolov3.weights --cfg yolov3.cfg --to pdparams --names ppdet
    portdet convert ppyolo_r50vd_dcn_2x_coco.pdparams --to pth --names miemiedetection
    """
    output = output or _beside(src, options["to"])
    read_too = {"--cfg": options["cfg"] or beside(src), **(read_files(model) if model else {})}
    distinct({"the converted file": output, "--report": report}, {"the source": src, **read_too})
    sizes = sizes_of(model)
    if check:
        installed()  # before any work
    arrays, found = _fit(src, model, yolov3_cfg.order(src, options["cfg"], *sizes)) if model or check else ({}, None)
    proven = partial(_prove, src, output, arrays, found, report) if check and found else None
    done = convert_file(src, output, depths=sizes[0], channels=sizes[1], check=proven, **options)
    if model and found is not None:
        done.notes += found.notes(model)
    if report is not None:
        done.save(report)
    if verbose:
        console().print(done.table())
    for line in (done.summary(), *done.notes):
        say(line)


def _beside(src: Path, to: str | None) -> Path:
    """The output's name where none is given."""
    if to is None:
        raise PortdetError("no output", fix="give -o FILE or --to FORMAT")
    stem = src.with_suffix("") if src.suffix in SUFFIXES else src
    return stem.with_name(stem.name + _EXTENSION[to])


def _prove(
    src: Path, output: Path, arrays: Arrays, model: Fit, report: Path | None, written: Path, done: Report
) -> None:
    """Check the written file and say what was found, in the report of a check that failed too."""
    proof = prove(src, written, done.target_format, arrays, model)
    done.check = proof.facts()
    console().print(proof.table())
    for line in proof.lines():
        say(line)
    if report is not None:
        done.save(report)
    proof.require(str(output))


def _fit(src: Path, model: str | None, order: yolov3_cfg.Order) -> tuple[Arrays, Fit]:
    """The file's arrays by canonical name, and the model that they are weights of."""
    try:
        arrays = read(src, order)[1].arrays
    except UnknownModel as error:
        fix = "--check runs a model that portdet knows; convert without it" if model is None else error.fix
        raise PortdetError(error.what, fix=fix, where=error.where) from None
    with checks.naming_file(src):
        return arrays, fit(arrays, section_of(load(model)) if model else None)
