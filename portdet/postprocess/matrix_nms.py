"""Matrix NMS (Wang et al. 2020, SOLOv2, section 3.3): every score falls by its overlaps with higher ones, none is cut.

Two conventions of the box version are in use, see `CONVENTIONS`. The decay itself (`decay`) is that of masks too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from portdet.errors import PortdetError
from portdet.postprocess.detections import Detections
from portdet.session import Array

Kernel = Literal["linear", "gaussian"]
Ranking = Literal["class", "image"]

_BLOCK = 256  # candidates whose overlaps with all better ones are held at once: 23 MB for the 22743 boxes of 608 px


@dataclass(frozen=True)
class MatrixNms:
    """How one image's boxes are ranked and decayed. The defaults are PaddleDetection's for PP-YOLO.

    score_threshold: a score must be greater to take part; top_k: that many best go on, per class or per image
    (`ranking`; PaddleDetection, miemiedetection), 0: all; pixel_offset: 1 counts both edge pixels of a side
    (`normalized=False`); post_threshold: the decayed score must be greater (`inclusive`: or equal); keep: best boxes
    of the image that are returned, 0: all. sigma is the gaussian kernel's.
    """

    score_threshold: float = 0.01
    top_k: int = 0
    ranking: Ranking = "class"
    pixel_offset: float = 1.0
    kernel: Kernel = "linear"
    sigma: float = 2.0
    post_threshold: float = 0.01
    inclusive: bool = False
    keep: int = 100

    def __post_init__(self) -> None:
        if self.kernel not in ("linear", "gaussian"):
            raise PortdetError(f"unknown kernel '{self.kernel}' of Matrix NMS", fix="linear or gaussian")
        if self.ranking not in ("class", "image"):
            raise PortdetError(f"unknown ranking '{self.ranking}' of Matrix NMS", fix="class or image")


CONVENTIONS: dict[str, dict[str, Any]] = {
    "ppdet": {},
    "miemiedetection": {"top_k": 500, "ranking": "image", "pixel_offset": 0.0, "inclusive": True},
}
"""Arguments of `MatrixNms` by the system that has them."""


def matrix_nms(boxes: Array, scores: Array, options: MatrixNms) -> Detections:
    """The boxes of one image, best decayed score first; equal scores keep the order of classes, then of boxes.

    boxes (N, 4): x1 y1 x2 y2; scores (N, C). A box may come back once per class. Arithmetic is float32, as in both
    systems.
    """
    boxes, scores = np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
    by_class = scores.T
    labels, anchors = np.nonzero(by_class > options.score_threshold)
    score = scores[anchors, labels]
    rank = _best(score, labels, options)
    # A score only falls, and only by better ones: once `keep` are above all that is left, the rest need no overlaps.
    count = 8 * options.keep or len(rank)
    while True:
        tried = np.sort(rank[:count])
        decayed = _decayed(boxes[anchors[tried]], score[tried], labels[tried], options)
        order = np.argsort(-decayed, kind="stable")
        order = order[_passes(decayed[order], options)][: options.keep or None]
        if count >= len(rank) or (len(order) == options.keep and decayed[order[-1]] > score[rank[count]]):
            break
        count *= 4
    kept = tried[order]
    return Detections(boxes[anchors[kept]], decayed[order], labels[kept].astype(np.int64))


def _best(score: NDArray[np.float32], labels: Array, options: MatrixNms) -> NDArray[np.int64]:
    """The candidates that take part, best first."""
    rank: NDArray[np.int64] = np.argsort(-score, kind="stable")
    if not options.top_k or options.ranking == "image":
        return rank[: options.top_k or None]
    taken = np.zeros(len(rank), bool)
    for label in np.unique(labels):
        taken[rank[labels[rank] == label][: options.top_k]] = True
    best: NDArray[np.int64] = rank[taken[rank]]
    return best


def _decayed(boxes: Array, score: Array, labels: Array, options: MatrixNms) -> NDArray[np.float32]:
    """The scores after the decay within each class."""
    out = score.copy()
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        own = own[np.argsort(-score[own], kind="stable")]
        blocks = _overlaps(boxes[own], np.float32(options.pixel_offset))
        out[own] *= decay(blocks, options.kernel, options.sigma)
    return out


def decay(blocks: Iterable[NDArray[np.float32]], kernel: Kernel, sigma: float) -> NDArray[np.float32]:
    """The factor on each candidate's score, candidates of one class in falling order of score.

    blocks: overlaps in turn; a block (e, w) holds those of candidates 0..e-1 with the last w of them. What candidates
    share with themselves or with worse ones is not read. A candidate k is decayed by each better j: f(IoU_jk) / f(c_j)
    with c_j the largest overlap of j with one better still; the smallest of these counts, and 1. In the linear kernel
    one that is a copy of another (c_j = 1) decays none, as 0/0 loses to every number in Paddle.
    """
    largest = np.zeros(0, np.float32)
    factors = [np.zeros(0, np.float32)]
    for block in blocks:
        better = np.triu(block, k=1 - (len(block) - block.shape[1]))  # row j < column's own place
        largest = np.concatenate([largest, better.max(axis=0)])
        ratio = _ratio(better, largest[:, None], kernel, sigma)
        ratio[better == 0] = 1  # also rows that are not better
        factors.append(np.minimum(ratio.min(axis=0), np.float32(1)))
    return np.concatenate(factors)


def _ratio(overlap: Array, largest: Array, kernel: Kernel, sigma: float) -> NDArray[np.float32]:
    if kernel == "gaussian":
        gaussian: NDArray[np.float32] = np.exp((largest**2 - overlap**2) * np.float32(sigma))
        return gaussian
    none = np.full_like(overlap, np.inf)
    linear: NDArray[np.float32] = np.divide(1 - overlap, 1 - largest, out=none, where=largest < 1)
    return linear


def _overlaps(boxes: NDArray[np.float32], offset: np.float32) -> Iterator[NDArray[np.float32]]:
    """Blocks of IoU for `decay`. Boxes that do not touch have none, also where the offset would close the gap, as in
    Paddle: overlaps across gaps of less than a pixel would move scores by up to 3.5e-4."""
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    area = np.where((x2 < x1) | (y2 < y1), np.float32(0), (x2 - x1 + offset) * (y2 - y1 + offset))
    for start in range(0, len(boxes), _BLOCK):
        own, better = slice(start, start + _BLOCK), slice(0, start + _BLOCK)
        width = np.minimum(x2[better, None], x2[own]) - np.maximum(x1[better, None], x1[own])
        height = np.minimum(y2[better, None], y2[own]) - np.maximum(y1[better, None], y1[own])
        shared = (width + offset) * (height + offset) * ((width >= 0) & (height >= 0))
        union = area[better, None] + area[own] - shared
        yield np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _passes(score: NDArray[np.float32], options: MatrixNms) -> NDArray[np.bool_]:
    limit = np.float32(options.post_threshold)
    return score >= limit if options.inclusive else score > limit
