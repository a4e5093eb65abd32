"""Boxes on pictures: what the network was fed, what was there, what it found. Pictures are (H, W, 3) uint8 RGB."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from portdet.errors import plain
from portdet.files import replacing
from portdet.report.colours import Rgb, colour, ink_on
from portdet.session import Array

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Boxes:
    """What to draw: boxes (n, 4) x1 y1 x2 y2 in pixels of the picture, labels (n,), and scores (n,) or None."""

    boxes: Array
    labels: Array
    scores: Array | None = None

    def above(self, score: float) -> Boxes:
        """Those that reach `score`, weakest first, so that the best are drawn on top."""
        if self.scores is None:
            return self
        keep = np.flatnonzero(self.scores >= score)
        keep = keep[np.argsort(self.scores[keep], kind="stable")]
        return Boxes(self.boxes[keep], self.labels[keep], self.scores[keep])


def draw_boxes(picture: Picture, boxes: Boxes, names: Sequence[str], *, side: int = 0) -> Picture:
    """A copy of the picture with every box, its class name and its score.

    `side` > 0 first enlarges a picture whose longer side is smaller than that, so that the text stays legible.
    """
    factor = max(1.0, side / max(picture.shape[:2])) if side else 1.0
    canvas = Image.fromarray(picture)
    if factor > 1:
        shape = (round(canvas.width * factor), round(canvas.height * factor))
        canvas = canvas.resize(shape, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    longer = max(canvas.size)
    width, font = max(2, round(longer / 300)), _font(max(11, round(longer / 45)))
    scores = [None] * len(boxes.labels) if boxes.scores is None else list(boxes.scores)
    scaled = np.sort(np.asarray(boxes.boxes, np.float64).reshape(-1, 2, 2) * factor, axis=1).reshape(-1, 4)
    for box, label in zip(scaled, boxes.labels, strict=True):
        draw.rectangle(box.tolist(), outline=colour(int(label)), width=width)
    for box, label, score in zip(scaled, boxes.labels, scores, strict=True):
        text = plain(names[label]) if 0 <= label < len(names) else f"class {label}"
        _draw_tab(draw, box, text if score is None else f"{text} {score:.2f}", colour(int(label)), font, canvas.size)
    return np.asarray(canvas)


def _draw_tab(draw: Any, box: Array, text: str, rgb: Rgb, font: Any, size: tuple[int, int]) -> None:
    """The text on a tab above the box's left corner, inside the box where there is no room above."""
    _, top, _, bottom = font.getbbox("Ag")  # the same height for every word
    wide, high = font.getlength(text) + 6, bottom - top + 5
    x = max(0.0, min(float(box[0]), size[0] - wide))
    y = float(box[1]) - high if box[1] >= high else max(0.0, min(float(box[1]), size[1] - high))
    draw.rectangle([x, y, x + wide, y + high], fill=rgb)
    draw.text((x + 3, y + 3 - top), text, fill=ink_on(rgb), font=font)


def mosaic(
    pictures: Sequence[Picture], captions: Sequence[str], *, columns: int = 4, group: int = 1, cell: int = 320
) -> Picture:
    """Pictures in a grid of square cells, each scaled to fit, its caption above; `group` of them stand close."""
    columns = max(1, min(columns, len(pictures)))
    rows = max(1, -(-len(pictures) // columns))
    gap, apart, strip, font = 6, 18, 24, _font(14)
    left = [gap + i * (cell + gap) + i // group * (apart if group > 1 else 0) for i in range(columns)]
    canvas = Image.new("RGB", (left[-1] + cell + gap, rows * (cell + strip + gap) + gap), (245, 245, 245))
    draw = ImageDraw.Draw(canvas)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = left[index % columns], gap + index // columns * (cell + strip + gap)
        factor = cell / max(picture.shape[:2])
        shape = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
        tile = Image.fromarray(picture).resize(shape, Image.Resampling.BICUBIC)
        draw.text((x + 2, y + 4), _shorten(plain(caption), font, cell - 4), fill=(30, 30, 30), font=font)
        canvas.paste(tile, (x + (cell - shape[0]) // 2, y + strip + (cell - shape[1]) // 2))
    return np.asarray(canvas)


def side_by_side(
    pictures: Sequence[Picture],
    truth: Sequence[Boxes],
    found: Mapping[str, Sequence[Boxes]],
    names: Sequence[str],
    captions: Sequence[str],
    *,
    score: float = 0.25,
    cell: int = 320,
) -> Picture:
    """`val_batch.jpg`: each picture with what is there and, to its right, what each of `found` found above `score`.

    `found` is one detector's boxes, {"found": boxes}, or several backends' by name.
    """
    tiles, titles = [], []
    for index, (picture, there, caption) in enumerate(zip(pictures, truth, captions, strict=True)):
        tiles.append(draw_boxes(picture, there, names, side=cell))
        titles.append(f"{caption}: truth ({len(there.labels)})")
        for name, boxes in found.items():
            shown = boxes[index].above(score)
            tiles.append(draw_boxes(picture, shown, names, side=cell))
            titles.append(f"{name} ({len(shown.labels)}) from score {score:g}")
    group = 1 + len(found)
    return mosaic(tiles, titles, columns=4 if group == 2 else group, group=group, cell=cell)


def train_batch(
    images: Array,
    boxes: Sequence[Boxes],
    names: Sequence[str],
    captions: Sequence[str],
    *,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    cell: int = 320,
) -> Picture:
    """`train_batch.jpg`: images (B, 3, H, W) as the network gets them, x = (rgb / 255 - mean) / std, with boxes."""
    pixels = images.transpose(0, 2, 3, 1) * np.asarray(std) + np.asarray(mean)
    pictures = np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)
    tiles = [draw_boxes(p, b, names, side=cell) for p, b in zip(pictures, boxes, strict=True)]
    return mosaic(tiles, captions, columns=4, cell=cell)


def save(path: Path, picture: Picture) -> None:
    """Write a picture; the suffix decides the format (.jpg, .png)."""
    with replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, quality=92)


def encode(picture: Picture, *, width: int = 0) -> bytes:
    """The picture as JPEG bytes, shrunk to `width` if it is wider."""
    canvas = Image.fromarray(picture)
    if width and canvas.width > width:
        canvas = canvas.resize((width, round(canvas.height * width / canvas.width)), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    canvas.save(out, "JPEG", quality=85)
    return out.getvalue()


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _shorten(text: str, font: Any, width: int) -> str:
    """Text cut in its middle until it fits."""
    whole = text
    while text and font.getlength(text) > width:
        keep = len(text) - 2
        text = whole[: keep // 2] + "…" + whole[len(whole) - keep // 2 :]
    return text
