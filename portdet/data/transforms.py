"""Resizing and normalisation of single images, and where boxes go with them.

Images are (H, W, 3) uint8, RGB; boxes (n, 4), x1 y1 x2 y2 in pixels; `size` is the side of the square network input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from portdet.data.records import Image

Float = NDArray[np.float32]
Table = NDArray[np.float32]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY = 128

# mindspore-ai/models' numbers of interpolation methods; 3 is nearest again, so nearest is drawn twice as often.
NEAREST, BILINEAR, BICUBIC = 0, 1, 2
_Filter = Pillow.Resampling
METHODS = (_Filter.NEAREST, _Filter.BILINEAR, _Filter.BICUBIC, _Filter.NEAREST, _Filter.LANCZOS)


def resize(image: Image, width: int, height: int, method: int) -> Image:
    """Resize with Pillow, which filters over all pixels when it shrinks; OpenCV's bilinear gives other values."""
    return np.asarray(Pillow.fromarray(image).resize((width, height), METHODS[method]))


def evaluation_method(width: int, height: int, size: int) -> int:
    """Bicubic if both sides grow, nearest if both shrink, bilinear otherwise (mindspore-ai/models)."""
    if size > width and size > height:
        return BICUBIC
    return NEAREST if size < width and size < height else BILINEAR


def stretch(image: Image, size: int) -> Image:
    """The image at (size, size), its aspect ratio not kept."""
    height, width = image.shape[:2]
    return resize(image, size, size, evaluation_method(width, height, size))


def letterbox(image: Image, size: int) -> Image:
    """The image at its aspect ratio in the middle of a grey (size, size), as darknet's `letterbox_image`.

    OpenCV's bilinear, since darknet interpolates between two pixels too when it shrinks.
    """
    height, width = image.shape[:2]
    left, top, new_width, new_height = letterbox_place(width, height, size)
    out = np.full((size, size, 3), GREY, np.uint8)
    small = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    out[top : top + new_height, left : left + new_width] = small
    return out


def letterbox_place(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    """Left, top, width, height of the image within the input."""
    if width >= height:
        new_width, new_height = size, max(height * size // width, 1)
    else:
        new_width, new_height = max(width * size // height, 1), size
    return (size - new_width) // 2, (size - new_height) // 2, new_width, new_height


def fit(image: Image, size: int, how: str) -> Image:
    """The network input of an evaluated image; `how` is `data.resize`."""
    if how == "stretch_cubic":  # PaddleDetection's `interp: 2`; no filter where the image shrinks
        return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)
    return letterbox(image, size) if how == "letterbox" else stretch(image, size)


def fit_boxes(boxes: NDArray[Any], width: int, height: int, size: int, how: str) -> NDArray[Any]:
    """Boxes of the original (width, height) in pixels of the input."""
    scale, shift = _affine(width, height, size, how)
    return boxes * scale + shift


def restore_boxes(boxes: NDArray[Any], width: int, height: int, size: int, how: str) -> NDArray[Any]:
    """Boxes in pixels of the input in pixels of the original; the inverse of `fit_boxes`, not clipped."""
    scale, shift = _affine(width, height, size, how)
    return (boxes - shift) / scale


def _affine(width: int, height: int, size: int, how: str) -> tuple[Float, Float]:
    left, top, new_width, new_height = (0, 0, size, size)
    if how == "letterbox":
        left, top, new_width, new_height = letterbox_place(width, height, size)
    scale = np.array([new_width / width, new_height / height] * 2, np.float32)
    return scale, np.array([left, top] * 2, np.float32)


def normalisation(mean: Sequence[float], std: Sequence[float]) -> Table:
    """Table (3, 256) of (value / 255 - mean) / std: an image has only 256 values a channel.

    Computed in float64 and rounded once, so no order of float32 operations is part of the definition.
    """
    values = np.arange(256) / 255.0
    table = (values - np.asarray(mean, np.float64)[:, None]) / np.asarray(std, np.float64)[:, None]
    return np.asarray(table, np.float32)


def normalise(image: Image | Float, table: Table, out: Float) -> None:
    """Write an image (H, W, 3), uint8 or float32 of 0..255 and beyond, into `out` (3, H, W), normalised.

    A float image takes the line through the table's ends.
    """
    if image.dtype == np.float32:
        scale = ((table[:, 255].astype(np.float64) - table[:, 0]) / 255).astype(np.float32)
        for channel in range(3):
            np.multiply(image[..., channel], scale[channel], out=out[channel])
            out[channel] += table[channel, 0]
        return
    levels = np.asarray(image, np.uint8)
    for channel in range(3):
        # mode: with the default, "raise", numpy fills a second buffer first (3 times slower)
        np.take(table[channel], levels[..., channel], out=out[channel], mode="clip")
