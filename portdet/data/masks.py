"""COCO's segmentations as masks: polygons, run lengths, and run lengths packed into text.

Runs are decoded here, each within its mask: pycocotools takes lengths and text as they come, and writes past the end of
the mask or the text where they are wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from portdet.errors import PortdetError
from portdet.outside import shown

MOST_PIXELS = 178_956_970  # of an image or a mask: Pillow's own limit, 13,000 x 13,000


def decode(segment: Any, height: int, width: int, where: str) -> NDArray[np.bool_]:
    """The mask (height, width) of one `segmentation`. Raises PortdetError for what is none of that size."""
    try:
        if height * width > MOST_PIXELS:
            raise ValueError(f"a mask of {width}x{height} pixels, at most {MOST_PIXELS} are taken")
        return _polygons(segment, height, width) if type(segment) is list else _runs(segment, height, width)
    except ValueError as error:
        raise PortdetError(
            f"the segmentation {shown(segment)} is no mask: {error}", where=where, fix="correct the annotation file"
        ) from None


def _polygons(polygons: list[Any], height: int, width: int) -> NDArray[np.bool_]:
    from pycocotools import mask as coco

    reach = 2.0 * max(height, width)  # an edge is drawn point by point, so its length costs time and memory
    for polygon in polygons:
        numbers = type(polygon) is list and all(type(v) in (int, float) for v in polygon)
        if not numbers or len(polygon) < 6 or len(polygon) % 2 or not all(-reach <= v <= 2 * reach for v in polygon):
            raise ValueError("a polygon is a list of 3 points or more, x and y in turn, near the image")
    if not polygons:
        raise ValueError("there is no polygon")
    return np.asarray(coco.decode(coco.merge(coco.frPyObjects(polygons, height, width))), bool)


def _runs(segment: Any, height: int, width: int) -> NDArray[np.bool_]:
    """Runs of 0 and 1 in turn, down the columns, first of 0."""
    if type(segment) is not dict or segment.get("size") != [height, width]:
        raise ValueError(f"neither polygons nor runs of size [{height}, {width}]")
    counts = segment.get("counts")
    if type(counts) is str:
        counts = _unpacked(counts)
    if type(counts) is not list or not all(type(v) is int and v >= 0 for v in counts):
        raise ValueError("counts are whole numbers from 0 on")
    if sum(counts) != height * width:
        raise ValueError(f"the counts add up to {shown(sum(counts))}, the mask has {height * width} pixels")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T


def _unpacked(text: str) -> list[int]:
    """The counts of maskApi.c's rleToString: 5 bits a character, from the third count on as the difference to two
    before."""
    counts: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            code = ord(text[place]) - 48 if place < len(text) else -1
            if not 0 <= code < 64 or shift > 35:
                raise ValueError("counts that are no packed runs")
            value |= (code & 0x1F) << shift
            place, shift, more = place + 1, shift + 5, bool(code & 0x20)
        if code & 0x10:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts
