"""Statistics of the labels of a data set, for the log and for plots."""

from __future__ import annotations

from typing import Any

import numpy as np

from portdet.data.records import Dataset

# COCO's limits between small, medium and large boxes: areas in pixels of the original image.
SMALL, LARGE = 32**2, 96**2
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def describe(dataset: Dataset) -> dict[str, Any]:
    """Counts as plain numbers and lists, ready for JSON.

    `per_class` has boxes and images for each name; `quantiles` lists the levels of `box_side` (square root of a box's
    share of its image), `box_aspect` (width / height) and `boxes_per_image`.
    """
    records = dataset.records
    labels = np.concatenate([r.labels for r in records]) if records else np.zeros(0, np.int32)
    sides = np.concatenate([r.xywh[:, 2:] for r in records]) if records else np.zeros((0, 2))
    image_areas = np.repeat([r.width * r.height for r in records], [len(r.labels) for r in records])
    areas = np.concatenate([r.areas for r in records]) if records else np.zeros(0)
    per_image = np.array([len(r.labels) for r in records])
    return {
        "images": len(records),
        "boxes": len(labels),
        "crowd": int(sum(r.crowd.sum() for r in records)),
        "images_without_boxes": int((per_image == 0).sum()),
        "per_class": {
            name: {"boxes": int((labels == i).sum()), "images": sum(bool((r.labels == i).any()) for r in records)}
            for i, name in enumerate(dataset.names)
        },
        "sizes": {
            "small": int((areas < SMALL).sum()),
            "medium": int(((areas >= SMALL) & (areas < LARGE)).sum()),
            "large": int((areas >= LARGE).sum()),
        },
        "quantiles": list(QUANTILES),
        "boxes_per_image": _quantiles(per_image),
        "box_side": _quantiles(np.sqrt(sides.prod(1) / image_areas)),
        "box_aspect": _quantiles(sides[:, 0] / sides[:, 1]),
    }


def _quantiles(values: Any) -> list[float]:
    return [round(float(v), 4) for v in np.quantile(values, QUANTILES)] if len(values) else []
