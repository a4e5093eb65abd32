"""`portdet data`: convert, inspect and draw data sets."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import click

from portdet.cli.options import ConfigCommand
from portdet.console import say
from portdet.errors import PortdetError

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def command() -> None:
    """Convert, inspect and draw data sets."""


@command.command()
@click.argument("kind", type=click.Choice(["voc"]))
@click.argument("root", type=FOLDER)
@click.option("--split", metavar="LIST", help="Image list below ROOT, for example ImageSets/Main/train.txt.")
@click.option("-o", "--output", type=FILE, required=True, help="COCO file to write.")
@click.option("--names", metavar="A,B,...", help="Class names in order; all names in Annotations, sorted, without it.")
@click.option("--bad-box", type=click.Choice(["clip", "error"]), default="clip", show_default=True)
@click.option("--bad-image", type=click.Choice(["error", "skip"]), default="error", show_default=True)
def convert(
    kind: str, root: Path, split: str | None, output: Path, names: str | None, bad_box: str, bad_image: str
) -> None:
    """Write one split of a Pascal VOC data set as COCO JSON; images stay in ROOT/JPEGImages.

    \b
    portdet data convert voc bccd --split ImageSets/Main/train.txt -o bccd/train.json
    """
    from portdet.data.voc import convert_voc, files_of, splits
    from portdet.files import distinct

    if split is None:
        found = ", ".join(splits(root)) or "no list in ImageSets/Main"
        raise PortdetError("no split given", where=str(root), fix=f"--split LIST; found: {found}")
    distinct({"--output": output}, {"the image list": root / split, **files_of(root)})
    chosen = tuple(names.split(",")) if names else ()
    report = convert_voc(root, split, output, names=chosen, bad_box=bad_box, bad_image=bad_image)
    written = json.loads(output.read_text(encoding="utf-8"))
    classes = ", ".join(category["name"] for category in written["categories"])
    say(f"{output}: {len(written['images'])} images, {len(written['annotations'])} boxes; classes {classes}")
    for line in report.lines():
        say(f"  {line}")


@command.command(cls=ConfigCommand, keys=("root", "train", "val", "bad_box", "bad_image"))
@click.argument("config")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--pictures", type=FOLDER, help="Write labels_<split>.png and samples_<split>.jpg there.")
def show(config: str, as_json: bool, pictures: Path | None, overrides: tuple[str, ...]) -> None:
    """Counts, faults found, and statistics of the labels of CONFIG's data, as training would use it."""
    from portdet.config import load
    from portdet.data import open_datasets
    from portdet.data.describe import describe

    values = load(config, overrides)
    sets = dict(zip(("train", "val"), open_datasets(values.data, values.train.seed), strict=True))
    found = {split: describe(dataset) | {"findings": dataset.report.lines()} for split, dataset in sets.items()}
    if as_json:
        say(json.dumps(found, indent=2))
    else:
        say("\n\n".join(_text(split, about) for split, about in found.items()))
    if pictures is not None:
        for split, dataset in sets.items():
            _pictures(pictures, split, dataset)
        say(f"pictures in {pictures}", err=True)


def _text(split: str, about: dict[str, Any]) -> str:
    sizes = ", ".join(f"{number} {name}" for name, number in about["sizes"].items())
    lines = [
        f"{split}: {about['images']} images, {about['boxes']} boxes ({sizes}; {about['crowd']} crowd), "
        f"{about['images_without_boxes']} images without boxes"
    ]
    width = max(map(len, [*about["per_class"], "class"]))
    lines.append(f"  {'class':{width}}  {'boxes':>7}  {'images':>7}")
    for name, counts in about["per_class"].items():
        lines.append(f"  {name:{width}}  {counts['boxes']:7}  {counts['images']:7}")
    lines.append(f"  {'quantile':16}" + "".join(f"{level:9.0%}" for level in about["quantiles"]))
    for key in ("boxes_per_image", "box_side", "box_aspect"):
        lines.append(f"  {key.replace('_', ' '):16}" + "".join(f"{value:9.4g}" for value in about[key]))
    lines += [f"  ! {line}" for line in about["findings"]]
    return "\n".join(lines)


def _pictures(folder: Path, split: str, dataset: Any, count: int = 8) -> None:
    from portdet.data.files import ImageFiles
    from portdet.files import distinct
    from portdet.report import draw, plots

    labels, samples = folder / f"labels_{split}.png", folder / f"samples_{split}.jpg"
    source = dataset.source
    read = {r.name: source.folder / r.name for r in dataset.records} if isinstance(source, ImageFiles) else {}
    distinct({"the picture of labels": labels, "the picture of samples": samples}, read)
    plots.labels(labels, dataset.coco_ground_truth())
    records = dataset.records[:count]
    boxes = [draw.Boxes(record.boxes, record.labels) for record in records]
    images = [draw.draw_boxes(dataset.read(r), b, dataset.names, side=320) for r, b in zip(records, boxes, strict=True)]
    draw.save(samples, draw.mosaic(images, [record.name for record in records]))


@command.command()
@click.option("-o", "--output", type=FOLDER, required=True, help="Folder to make.")
@click.option("--count", type=click.IntRange(1, 10_000_000), default=256, show_default=True, help="Training images.")
@click.option(
    "--val-count", type=click.IntRange(1, 10_000_000), default=64, show_default=True, help="Validation images."
)
@click.option(
    "--size", type=click.IntRange(16, 8192), default=128, show_default=True, help="Side of the images in pixels."
)
def scenes(output: Path, count: int, val_count: int, size: int) -> None:
    """Write drawn scenes with boxes and masks as a COCO data set: train.json, val.json, train/, val/.

    The images have the bits that `data.format=scenes` trains on.
    """
    from portdet.config import DataConfig
    from portdet.data.scenes import read_scenes

    if output.exists():
        raise PortdetError("is there already", where=str(output), fix="name a new folder")
    config = DataConfig(train_count=count, val_count=val_count, scene_size=size)
    partial = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        for split in ("train", "val"):
            _write_coco(partial, split, read_scenes(config, split))
        partial.rename(output)
    except OSError as error:
        raise PortdetError(f"cannot write: {error.strerror or error}", where=str(output)) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"{output}: {count} images to train, {val_count} to validate. To train on them:")
    say(f"  data.format=coco data.root={output} data.train=train.json data.train_images=train")
    say("  data.val=val.json data.val_images=val")


def _write_coco(folder: Path, split: str, dataset: Any) -> None:
    """Images as PNG, which keeps every bit, and their annotations with masks."""
    from PIL import Image

    (folder / split).mkdir(parents=True)
    truth = dataset.coco_ground_truth(masks=True)
    for record, entry in zip(dataset.records, truth["images"], strict=True):
        entry["file_name"] = f"{record.image_id:06}.png"
        Image.fromarray(dataset.read(record)).save(folder / split / entry["file_name"])
    (folder / f"{split}.json").write_text(json.dumps(truth), encoding="utf-8")
