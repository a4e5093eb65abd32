"""Detecting objects in image files: drawings and one JSON list."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from portdet.config import Config
from portdet.data.files import read_image
from portdet.data.transforms import fit, normalisation, normalise
from portdet.errors import PortdetError
from portdet.files import distinct, write_text
from portdet.models import Detector
from portdet.outside import plain, shown
from portdet.report import draw
from portdet.report.draw import Boxes
from portdet.session import Session

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The image files that paths name; folders give the images in them, sorted. Raises where there is none."""
    files: list[Path] = []
    for path in paths:
        if os.path.isdir(path):
            files += sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        elif os.path.isfile(path):
            files.append(path)
        else:
            raise PortdetError(f"no file or folder {shown(str(path))}", fix="check the path")
    if not files:
        raise PortdetError("no images found", fix=f"known suffixes: {', '.join(sorted(SUFFIXES))}")
    return files


def drawings(files: Sequence[Path], folder: Path) -> list[Path]:
    """Where the drawing of each file goes: no two of other folders or suffixes under one name, in any case."""
    taken: set[str] = set()
    found = []
    for file in files:
        stem, number = file.stem, 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{file.stem}_{number}"
        taken.add(stem.casefold())
        found.append(folder / f"{stem}.jpg")
    return found


def predict_images(
    config: Config,
    detector: Detector,
    session: Session,
    files: Sequence[Path],
    names: Sequence[str],
    folder: Path,
    score: float,
    advance: Callable[[int], None],
) -> tuple[dict[str, int], list[str]]:
    """Detect in every file; returns boxes found per class, and the files that could not be read, with the reason.

    Writes a drawing per image and predictions.json: file, and per box class, score, x1 y1 x2 y2 in its pixels.
    """
    targets = drawings(files, folder)
    outputs = {f"the drawing of {plain(str(file))}": target for file, target in zip(files, targets, strict=True)}
    distinct({**outputs, "predictions.json": folder / "predictions.json"}, {f"{plain(str(f))}": f for f in files})
    fields, data = detector.fields, config.data
    table = normalisation(fields.mean, fields.std)
    pixels = np.zeros((1, 3, data.imgsz, data.imgsz), np.float32)
    counts, skipped, listed = dict.fromkeys(names, 0), [], []
    for number, file in enumerate(files):
        advance(1)
        try:
            image = read_image(file)
        except PortdetError as error:
            skipped.append(str(error))
            continue
        normalise(fit(image, data.imgsz, data.resize), table, pixels[0])
        size = np.array([[image.shape[1], image.shape[0]]], np.int64)
        one = detector.detections(session.predict(pixels), size, config)[0]
        boxes = Boxes(one.boxes, one.labels, one.scores).above(score)
        draw.save(targets[number], draw.draw_boxes(image, boxes, names, side=640))
        scores = np.zeros(0) if boxes.scores is None else boxes.scores
        rows = [
            {"class": names[label], "score": round(float(s), 5), "box": [round(float(v), 2) for v in box]}
            for box, label, s in zip(boxes.boxes, boxes.labels, scores, strict=True)
        ]
        for row in rows:
            counts[str(row["class"])] += 1
        listed.append({"file": str(file), "width": image.shape[1], "height": image.shape[0], "boxes": rows[::-1]})
    write_text(folder / "predictions.json", json.dumps(listed, indent=1) + "\n")
    return counts, skipped
