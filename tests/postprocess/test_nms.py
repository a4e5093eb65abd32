"""NMS against programs that are not ours: darknet's C, PaddlePaddle's multiclass NMS, and a plain loop."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from portdet.postprocess.nms import diou, iou, nms
from portdet.session import Array
from tests.counts import Calls


def boxes_of(rng: np.random.RandomState, count: int, spread: float = 200.0) -> Array:
    corner = rng.rand(count, 2) * spread
    return np.concatenate([corner, corner + 5 + rng.rand(count, 2) * 60], axis=1)


def loop_nms(boxes: Array, scores: Array, threshold: float, offset: float) -> list[int]:
    """The textbook loop, a pair of boxes at a time."""
    left, kept = sorted(range(len(scores)), key=lambda i: (-scores[i], i)), []
    while left:
        best = left.pop(0)
        kept.append(best)
        ax1, ay1, ax2, ay2 = boxes[best]
        survivors = []
        for i in left:
            bx1, by1, bx2, by2 = boxes[i]
            w = max(0.0, min(ax2, bx2) - max(ax1, bx1) + offset)
            h = max(0.0, min(ay2, by2) - max(ay1, by1) + offset)
            area = (ax2 - ax1 + offset) * (ay2 - ay1 + offset) + (bx2 - bx1 + offset) * (by2 - by1 + offset)
            if w * h / (area - w * h) <= threshold:
                survivors.append(i)
        left = survivors
    return kept


def test_iou_by_hand() -> None:
    a, b = np.array([[0, 0, 9, 9]]), np.array([[5, 0, 14, 9], [20, 20, 30, 30], [0, 0, 9, 9]])
    # Plain: 4*9 of 81+81-36. Counting both edge pixels: 5*10 of 100+100-50.
    np.testing.assert_allclose(iou(a, b), [[36 / 126, 0, 1]], rtol=0, atol=1e-15)
    np.testing.assert_allclose(iou(a, b, 1.0), [[50 / 150, 0, 1]], rtol=0, atol=1e-15)


def test_diou_by_hand() -> None:
    a, b = np.array([[0, 0, 4, 4]]), np.array([[2, 0, 6, 4], [100, 0, 104, 4], [0, 0, 4, 4]])
    # IoU 8/24, centres 2 apart, common box 6 x 4: 1/3 - 4/52. Far away: 0 - 100^2 / (104^2 + 4^2).
    np.testing.assert_allclose(diou(a, b), [[1 / 3 - 4 / 52, -(100**2) / (104**2 + 16), 1]], rtol=0, atol=1e-15)


def test_empty_boxes_overlap_nothing() -> None:
    point = np.array([[3.0, 3, 3, 3], [3, 3, 3, 3]])
    assert iou(point, point).tolist() == [[0, 0], [0, 0]]
    assert nms(point, np.array([0.5, 0.4]), threshold=0.5, pixel_offset=0).tolist() == [0, 1]
    assert nms(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), threshold=0.5).tolist() == []


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_equals_the_plain_loop(offset: float, threshold: float) -> None:
    rng = np.random.RandomState(3)
    boxes, scores = boxes_of(rng, 300), rng.rand(300).round(2)  # rounding makes ties
    assert nms(boxes, scores, threshold=threshold, pixel_offset=offset).tolist() == loop_nms(
        boxes, scores, threshold, offset
    )


def test_overlap_equal_to_the_threshold_stays() -> None:
    boxes, scores = np.array([[0.0, 0, 10, 10], [0, 0, 10, 5]]), np.array([0.9, 0.8])
    assert nms(boxes, scores, threshold=0.5, pixel_offset=0).tolist() == [0, 1]
    assert nms(boxes, scores, threshold=0.4999, pixel_offset=0).tolist() == [0]


def test_equal_scores_keep_the_order_of_the_input() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [50, 50, 60, 60], [1, 0, 11, 10], [90, 0, 99, 9]])
    assert nms(boxes, np.full(4, 0.5), threshold=0.5).tolist() == [0, 1, 3]


def test_labels_do_not_suppress_each_other_and_limit_is_a_prefix() -> None:
    rng = np.random.RandomState(5)
    boxes, scores, labels = boxes_of(rng, 400), rng.rand(400), rng.randint(3, size=400)
    every = nms(boxes, scores, labels, threshold=0.4)
    for label in range(3):
        group = np.flatnonzero(labels == label)
        alone = group[nms(boxes[group], scores[group], threshold=0.4)]
        assert every[labels[every] == label].tolist() == alone.tolist()
        some = nms(boxes, scores, labels, threshold=0.4, limit=7)
        assert some[labels[some] == label].tolist() == alone[:7].tolist()
    assert (np.diff(scores[every]) <= 0).all()


def test_diou_nms_keeps_a_neighbour_that_iou_drops() -> None:
    boxes, scores = np.array([[0.0, 0, 10, 10], [3, 0, 13, 10]]), np.array([0.9, 0.8])
    # Plain areas: IoU 70/130 = .538 > .5; DIoU .538 - 9/(169+100) = .505 > .5; threshold between the two tells.
    assert nms(boxes, scores, threshold=0.52, pixel_offset=0).tolist() == [0]
    assert nms(boxes, scores, threshold=0.52, pixel_offset=0, kind="diou").tolist() == [0, 1]


def test_equals_darknet(oracles: Path) -> None:
    """3337 boxes of 80 classes that darknet's own do_nms_sort kept of 6674, threshold .45, plain overlap."""
    data = np.load(oracles / "darknet_yolov3_thin8" / "eval.npz")
    raw, want = data["boxes_raw"], data["boxes_nms"]  # rows: class, score, centre x, centre y, width, height
    centre, half = raw[:, 2:4].astype(float), raw[:, 4:6].astype(float) / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    kept = raw[nms(boxes, raw[:, 1], raw[:, 0], threshold=0.45, pixel_offset=0)]
    assert len(kept) == len(want) == 3337
    assert set(map(tuple, kept)) == set(map(tuple, want))
    wrong = raw[nms(boxes, raw[:, 1], raw[:, 0], threshold=0.45, pixel_offset=1)]
    assert set(map(tuple, wrong)) != set(map(tuple, want))


def test_equals_paddle_multiclass_nms(oracles: Path) -> None:
    """Paddle's multiclass_nms3 on 120 boxes x 5 classes, threshold .45, normalized, best 100 of all classes."""
    data = np.load(oracles / "nms" / "ppdet_ops.npz")
    boxes, scores, labels = np.tile(data["boxes"][0], (5, 1)), data["scores"][0].ravel(), np.repeat(range(5), 120)
    kept = nms(boxes, scores, labels, threshold=0.45, pixel_offset=0)[:100]
    got = np.column_stack([labels[kept], scores[kept], boxes[kept]]).astype(np.float32)
    want = data["multiclass"]
    order = np.lexsort((-want[:, 1], want[:, 0]))
    np.testing.assert_array_equal(got[np.lexsort((-got[:, 1], got[:, 0]))], want[order])


@pytest.mark.parametrize("count", [250, 1000, 4000])
def test_cost_grows_with_the_boxes(count: int) -> None:
    """2.4 calls and 2.7 kB a box: neither a loop over pairs nor all overlaps at once."""
    rng = np.random.RandomState(1)
    boxes, scores = boxes_of(rng, count), rng.rand(count)
    tracemalloc.start()
    with Calls() as calls:
        nms(boxes, scores, threshold=0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert calls.number < 5 * count
    assert peak < 5000 * count
