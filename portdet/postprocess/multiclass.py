"""PaddleDetection's MultiClassNMS: a box counts once for every class that it reaches, and only the best go on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from portdet.config import EvalConfig
from portdet.postprocess.detections import Detections
from portdet.postprocess.nms import nms
from portdet.session import Array


def of(settings: EvalConfig) -> Callable[[Array, Array], Detections]:
    """The suppression that a configuration asks for: of one image's boxes (N, 4) and scores (N, C)."""
    return partial(
        multiclass_nms,
        score_threshold=settings.conf,
        threshold=settings.nms,
        top_k=settings.top_k,
        keep=settings.max_det,
        pixel_offset=settings.pixel_offset,
    )


def multiclass_nms(
    boxes: Array,
    scores: Array,
    *,
    score_threshold: float,
    threshold: float,
    top_k: int = 1000,
    keep: int = 100,
    pixel_offset: float = 0.0,
) -> Detections:
    """PaddleDetection's `MultiClassNMS` of one image: greedy NMS of each class's top_k scores over score_threshold,
    then the `keep` best of all classes, best first. boxes (N, 4), scores (N, C); top_k 0: all. pixel_offset 0 is
    its `normalized=True`, which it has by default since 2.0, 1 the older one's False."""
    by_class = scores.T
    labels, anchors = np.nonzero(by_class > score_threshold)
    score = scores[anchors, labels]
    rank = np.argsort(-score, kind="stable")
    best = np.sort(np.concatenate([rank[labels[rank] == label][: top_k or None] for label in range(scores.shape[1])]))
    kept = nms(
        boxes[anchors[best]], score[best], labels[best], threshold=threshold, pixel_offset=pixel_offset, limit=keep
    )
    kept = best[kept[:keep]]
    return Detections(boxes[anchors[kept]], score[kept], labels[kept].astype(np.int64))
