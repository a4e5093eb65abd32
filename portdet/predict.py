"""Detecting objects in image files: drawings and one JSON list."""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from portdet.config import Config
from portdet.data.files import read_image, several, suffixes
from portdet.data.transforms import fit, normalisation, normalise
from portdet.errors import PortdetError
from portdet.files import distinct, write_text
from portdet.models import Detector
from portdet.outside import plain, shown
from portdet.report import draw
from portdet.report.draw import Boxes
from portdet.session import Session

VIDEOS = {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"}
FRAMES = "take frames out of it, for example: mkdir frames; ffmpeg -i {} -vf fps=2 frames/%05d.jpg"


def image_files(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The image files that paths name, and in words what is left out of folders, which give the images in them, sorted.

    Raises where there is no image, and for a video.
    """
    files: list[Path] = []
    left: list[str] = []
    for path in paths:
        if os.path.isdir(path):
            inside = sorted(path.iterdir())
            files += [p for p in inside if p.suffix.lower() in suffixes() and not p.is_dir()]
            left += _left_out(path, [p for p in inside if p.is_dir() or p.suffix.lower() not in suffixes()])
        elif not os.path.isfile(path):
            raise PortdetError(f"no file or folder {shown(str(path))}", fix="check the path")
        elif path.suffix.lower() in VIDEOS:
            fix = FRAMES.format(shlex.quote(plain(str(path))))
            raise PortdetError("a video, which is not read", where=plain(str(path)), fix=fix)
        else:
            files.append(path)
    if not files:
        usual = [suffix for suffix in (".jpg", ".png", ".webp", ".tif", ".bmp", ".gif") if suffix in suffixes()]
        raise PortdetError(
            "; ".join(["no images found", *left]), fix=f"known are {', '.join(usual)} and more like these"
        )
    return files, left


def _left_out(folder: Path, paths: Sequence[Path]) -> list[str]:
    """'photos: 3 entries are no images and left out: 2 .mp4, 1 .txt', and how a video's frames are had."""
    found = Counter("folder" if path.is_dir() else plain(path.suffix.lower()[:20]) or "no suffix" for path in paths)
    if not found:
        return []
    kinds = [f"{number} {kind}" for kind, number in found.most_common(8)] + ["..."] * (len(found) > 8)
    line = f"{plain(str(folder))}: {len(paths)} entries are no images and left out: {', '.join(kinds)}"
    return [line, *([f"of a video, {FRAMES.format('VIDEO')}"] if found.keys() & VIDEOS else [])]


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
) -> tuple[dict[str, int], list[str], list[str]]:
    """Detect in every file; returns boxes found per class, and a line for each file that could not be read, or of which
    there is more than was looked at.

    Writes a drawing per image and predictions.json: file, and per box class, score, x1 y1 x2 y2 in its pixels.
    """
    targets = drawings(files, folder)
    outputs = {f"the drawing of {plain(str(file))}": target for file, target in zip(files, targets, strict=True)}
    distinct({**outputs, "predictions.json": folder / "predictions.json"}, {f"{plain(str(f))}": f for f in files})
    fields, data = detector.fields, config.data
    table = normalisation(fields.mean, fields.std)
    pixels = np.zeros((1, 3, data.imgsz, data.imgsz), np.float32)
    counts, skipped, cut, listed = dict.fromkeys(names, 0), list[str](), list[str](), []
    for number, file in enumerate(files):
        advance(1)
        try:
            image = read_image(file)
        except PortdetError as error:
            skipped.append(f"{error.where}: {error.what}")  # its advice is for training
            continue
        if several(file):
            cut.append(f"{plain(str(file))}: its first frame or page alone")
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
    return counts, skipped, cut
