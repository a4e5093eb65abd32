"""From PP-YOLO's predictions to boxes in the pixels of the original image, as PaddleDetection's `BBoxPostProcess`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from portdet.errors import PortdetError
from portdet.postprocess.detections import Detections
from portdet.session import Array

Suppress = Callable[[Array, Array], Detections]
"""Boxes (N, 4) and scores (N, C) of one image -> what is found in it: `matrix_nms` or `multiclass_nms` with options."""


def detections(
    predictions: NDArray[np.float32], sizes: Array, suppress: Suppress, *, clip: bool = True, last: float = 1.0
) -> list[Detections]:
    """Boxes of a batch.

    predictions (B, N, 4 + C) float32: corners in shares of the image, scores; sizes (B, 2): width, height of the
    originals, or what `truncated` makes of them. clip: the left top corner is moved to 0 at least, the right bottom
    one to (width - last, height - last) at most; neither is held to the other side. last: 1 as Paddle's `yolo_box`,
    which ends at the last pixel; 0 as miemiedetection.
    """
    if predictions.ndim != 3 or predictions.shape[2] < 5 or sizes.shape != (len(predictions), 2):
        raise PortdetError(
            f"expected predictions (B, N, 4+classes) and sizes (B, 2), got {predictions.shape} and {sizes.shape}",
            fix="pass the model's predictions and one (width, height) per image",
        )
    found = []
    for rows, size in zip(predictions, sizes.astype(np.float32), strict=True):
        low, high = rows[:, 0:2] * size, rows[:, 2:4] * size
        if clip:
            low, high = np.maximum(low, 0), np.minimum(high, size - np.float32(last))
        found.append(suppress(np.concatenate([low, high], axis=1), rows[:, 4:]))
    return found


def truncated(sizes: Array, side: int) -> NDArray[np.int64]:
    """Original sizes (B, 2) as PaddleDetection finds them again: int(side / float32(side / size)) in float32.

    Where the quotient falls below the whole number a pixel is lost, 118 becoming 117 at 608; boxes shrink with it.
    """
    factor = (side / np.asarray(sizes, np.float64)).astype(np.float32)
    return (np.float32(side) / factor).astype(np.int64)
