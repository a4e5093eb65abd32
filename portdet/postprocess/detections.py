"""The boxes found in an image, and COCO's list of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Detections:
    """The boxes found in one image, best first: boxes (n, 4) float32 x1 y1 x2 y2 in pixels of the original image,
    scores (n,) float32, labels (n,) int64 (0-based classes)."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)


def to_coco(found: Mapping[int, Detections], category_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Detections by image id as COCO's result list: `bbox` is x, y, width, height; label i is `category_ids[i]`."""
    return [
        {
            "image_id": int(image_id),
            "category_id": category_ids[int(label)],
            "bbox": [float(x1), float(y1), float(x2) - float(x1), float(y2) - float(y1)],
            "score": float(score),
        }
        for image_id, one in found.items()
        for (x1, y1, x2, y2), score, label in zip(one.boxes, one.scores, one.labels, strict=True)
    ]
