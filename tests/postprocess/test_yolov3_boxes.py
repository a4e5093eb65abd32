"""The evaluation rule of YOLOv3, by hand and against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from portdet.errors import PortdetError
from portdet.postprocess.detections import to_coco
from portdet.postprocess.yolov3 import detections
from portdet.session import Array


def row(box: list[float], objectness: float, classes: list[float]) -> list[float]:
    return [*box, objectness, *classes]


def batch(*rows: list[float]) -> Array:
    return np.array([rows], np.float32)


def test_score_class_and_pixels_by_hand() -> None:
    decoded = batch(
        row([0.5, 0.5, 0.25, 0.5], 0.5, [0.25, 0.75]),  # score .375, class 1, box 75..125 x 25..75
        row([0.5, 0.5, 0.25, 0.5], 0.001, [0.5, 0.5]),  # .0005: below the cut
    )
    (one,) = detections(decoded, np.array([[200, 100]]), conf=0.001)
    np.testing.assert_array_equal(one.boxes, [[75, 25, 125, 75]])
    np.testing.assert_array_equal(one.scores, np.array([0.375], np.float32))
    assert one.labels.tolist() == [1]
    assert to_coco({7: one}, [10, 20]) == [
        {"image_id": 7, "category_id": 20, "bbox": [75.0, 25.0, 50.0, 50.0], "score": 0.375}
    ]


def test_score_equal_to_the_cut_stays() -> None:
    decoded = batch(row([0.5, 0.5, 0.2, 0.2], 0.5, [0.5]))
    assert len(detections(decoded, np.array([[64, 64]]), conf=0.25)[0]) == 1
    assert len(detections(decoded, np.array([[64, 64]]), conf=0.2501)[0]) == 0


def test_clip_moves_the_corner_and_cuts_the_side() -> None:
    decoded = batch(row([0.0, 0.9, 0.5, 2.0], 1.0, [1.0]))
    size = np.array([[100, 50]])
    # x: -25..25 becomes 0 + 50; y: 45 - 50 = -5 becomes 0, height 100 becomes 50.
    np.testing.assert_array_equal(detections(decoded, size)[0].boxes, [[0, 0, 50, 50]])
    np.testing.assert_array_equal(detections(decoded, size, clip="none")[0].boxes, [[-25, -5, 25, 95]])
    right = batch(row([1.0, 0.5, 0.5, 0.5], 1.0, [1.0]))
    np.testing.assert_array_equal(detections(right, size)[0].boxes, [[75, 12.5, 125, 37.5]])  # x2 passes the edge


def test_one_class_per_anchor_or_every_class() -> None:
    decoded = batch(row([0.5, 0.5, 0.2, 0.2], 0.8, [0.5, 0.4]))
    size = np.array([[100, 100]])
    assert detections(decoded, size)[0].labels.tolist() == [0]
    both = detections(decoded, size, multi_label=True)[0]
    assert both.labels.tolist() == [0, 1]
    np.testing.assert_allclose(both.scores, [0.4, 0.32], rtol=1e-6)


def test_suppression_is_per_image_and_class() -> None:
    same = [0.5, 0.5, 0.4, 0.4]
    first = [row(same, 0.9, [1.0, 0.0]), row(same, 0.8, [1.0, 0.0]), row(same, 0.7, [0.0, 1.0])]
    second = [row(same, 0.6, [1.0, 0.0]), row(same, 0.0, [1.0, 0.0]), row(same, float("nan"), [0.0, 1.0])]
    got = detections(np.array([first, second], np.float32), np.array([[100, 100], [50, 80]]))
    assert [one.labels.tolist() for one in got] == [[0, 1], [0]]
    np.testing.assert_array_equal(got[1].scores, np.array([0.6], np.float32))


def test_equals_the_rule_written_as_a_loop() -> None:
    """Candidates of the engine's double loop, in python floats of float32 values; overlap with +1."""
    rng = np.random.RandomState(0)
    decoded = rng.rand(2, 200, 8).astype(np.float32)
    decoded[..., 2:4] *= 0.4
    sizes = np.array([[640, 480], [300, 500]])
    for one, rows, (w0, h0) in zip(detections(decoded, sizes, conf=0.3), decoded, sizes, strict=True):
        left = []
        for x, y, w, h, objectness, *classes in rows:
            label = int(np.argmax(classes))
            score = objectness * classes[label]
            if score >= 0.3:
                w, h = w * np.float32(w0), h * np.float32(h0)
                x1, y1 = max(0, x * np.float32(w0) - w / 2), max(0, y * np.float32(h0) - h / 2)
                left.append((score, label, x1, y1, min(w, w0), min(h, h0)))
        left.sort(key=lambda c: -c[0])
        kept: list[tuple[float, ...]] = []
        for cand in left:
            if all(cand[1] != k[1] or overlap(cand, k) <= 0.5 for k in kept):
                kept.append(cand)
        assert len(one) == len(kept) < len(left)
        assert one.labels.tolist() == [k[1] for k in kept]
        want = np.array([[k[2], k[3], k[2] + k[4], k[3] + k[5]] for k in kept])
        np.testing.assert_allclose(one.boxes, want, rtol=1e-6)


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    (_, _, ax, ay, aw, ah), (_, _, bx, by, bw, bh) = a, b
    w = max(0.0, min(ax + aw, bx + bw) - max(ax, bx) + 1)
    h = max(0.0, min(ay + ah, by + bh) - max(ay, by) + 1)
    return float(w * h / ((aw + 1) * (ah + 1) + (bw + 1) * (bh + 1) - w * h))


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(PortdetError, match="sizes"):
        detections(np.zeros((2, 5, 6), np.float32), np.zeros((1, 2), int))
    with pytest.raises(PortdetError, match="classes"):
        detections(np.zeros((2, 5, 5), np.float32), np.zeros((2, 2), int))
