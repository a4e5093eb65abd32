"""Matrix NMS against Paddle's operator, miemiedetection and the authors' mask version, each run on the same inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.errors import PortdetError
from portdet.postprocess import matrix_nms as module
from portdet.postprocess.detections import Detections
from portdet.postprocess.matrix_nms import CONVENTIONS, MatrixNms, decay, matrix_nms

Array = np.ndarray[Any, Any]
COPIES = np.array(
    [[0, 0, 10, 10], [0, 0, 10, 10], [1, 0, 10, 10], [0, 0, 10, 10], [10.5, 0, 20, 10], [20.4, 0, 30, 10]], np.float32
)
FALLING = np.array([[0.9], [0.8], [0.7], [0.6], [0.5], [0.4]], np.float32)


def crowd() -> tuple[Array, Array]:
    """Forty boxes that overlap a lot, three classes."""
    random = np.random.RandomState(5)
    centre, size = random.uniform(20, 80, (40, 2)), random.uniform(8, 50, (40, 2))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)
    return boxes, random.uniform(0, 1, (40, 3)).astype(np.float32)


# scores and classes on `crowd`: Paddle 3.3.1 (top 20 a class), miemiedetection's matrix_nms.py (top 60), 12 kept
PADDLE = (
    [0.99722546, 0.99005556, 0.98816776, 0.96121114, 0.90817797, 0.88789940,
     0.82680571, 0.81194419, 0.80569458, 0.80262059, 0.79381883, 0.76553565],
    [2, 1, 0, 1, 2, 0, 2, 0, 2, 2, 2, 2],
)  # fmt: skip
MIEMIE = (
    [0.99722546, 0.99005556, 0.98816776, 0.96121114, 0.91723889, 0.88789940,
     0.83440691, 0.81194419, 0.80569458, 0.80517828, 0.79908645, 0.76722670],
    [2, 1, 0, 1, 2, 0, 2, 0, 2, 2, 2, 2],
)  # fmt: skip
MIEMIE_GAUSSIAN = (
    [0.99722546, 0.99005556, 0.98816776, 0.98186392, 0.96121114, 0.89894825,
     0.88789940, 0.85088909, 0.84200525, 0.83092862, 0.82414192, 0.81194419],
    [2, 1, 0, 2, 1, 2, 0, 2, 2, 2, 2, 0],
)  # fmt: skip
OF_MIEMIE = MatrixNms(**{**CONVENTIONS["miemiedetection"], "top_k": 60, "keep": 12})
PUBLISHED = {
    "ppdet": (MatrixNms(top_k=20, keep=12), PADDLE),
    "miemiedetection": (OF_MIEMIE, MIEMIE),
    "miemiedetection gaussian": (replace(OF_MIEMIE, kernel="gaussian"), MIEMIE_GAUSSIAN),
}


def apart(found: Detections, want: tuple[list[float], list[int]]) -> float:
    """Largest difference of scores; infinite for another number of boxes or other classes."""
    if found.labels.tolist() != want[1]:
        return float("inf")
    return float(np.abs(found.scores - np.array(want[0])).max())


@pytest.mark.parametrize("name", PUBLISHED)
def test_both_conventions(name: str) -> None:
    options, want = PUBLISHED[name]
    assert apart(matrix_nms(*crowd(), options), want) <= 1.5e-7


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("field", ["pixel_offset", "kernel", "top_k", "keep", "sigma"])
def test_other_options_are_seen(name: str, field: str) -> None:
    options, want = PUBLISHED[name]
    kernel = "linear" if options.kernel == "gaussian" else "gaussian"
    other: Any = {"pixel_offset": 0.5, "kernel": kernel, "top_k": 3, "keep": 11, "sigma": 1.0}[field]
    difference = apart(matrix_nms(*crowd(), replace(options, **dict[str, Any]({field: other}))), want)
    assert (difference <= 1.5e-7) == (field == "sigma" and options.kernel == "linear")


def test_oracle_of_paddle(oracles: Path) -> None:
    with np.load(oracles / "nms" / "ppdet_ops.npz") as found:
        boxes, scores = found["boxes"][0], found["scores"][0].T
        for kernel in ("linear", "gaussian"):
            got, want = matrix_nms(boxes, scores, MatrixNms(kernel=kernel)), found[f"box_matrix_{kernel}"]
            assert apart(got, (want[:, 1], want[:, 0].tolist())) <= 1e-7
            np.testing.assert_array_equal(got.boxes, want[:, 2:])
            plain = matrix_nms(boxes, scores, MatrixNms(kernel=kernel, pixel_offset=0.0))
            assert apart(plain, (want[:, 1], want[:, 0].tolist())) > 1e-4


def test_gaps_below_a_pixel_are_gaps(oracles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the overlaps of `+1` across gaps the scores move by the 3.5e-4 that numpy versions are known to be off."""

    def across(boxes: Array, offset: float) -> list[Array]:
        low, high = np.maximum(boxes[:, None, :2], boxes[:, :2]), np.minimum(boxes[:, None, 2:], boxes[:, 2:])
        shared = np.maximum(high - low + offset, 0).prod(axis=2)
        area = (boxes[:, 2:] - boxes[:, :2] + offset).prod(axis=1)
        return [shared / (area[:, None] + area - shared)]

    monkeypatch.setattr(module, "_overlaps", across)
    with np.load(oracles / "nms" / "ppdet_ops.npz") as found:
        want = found["box_matrix_linear"]
        got = matrix_nms(found["boxes"][0], found["scores"][0].T, MatrixNms())
        assert np.abs(got.scores - want[:, 1]).max() == pytest.approx(3.5e-4, rel=0.05)


@pytest.mark.parametrize("kernel", ["linear", "gaussian"])
def test_copies_as_in_paddle(kernel: Any) -> None:
    """Paddle 3.3.1: copies of a box vanish (linear) or fall (gaussian), and do not decay what overlaps them."""
    found = matrix_nms(COPIES, FALLING, MatrixNms(kernel=kernel))
    want = {"linear": [0.06363634], "gaussian": [0.13404661, 0.10826822, 0.08120117]}[kernel]
    np.testing.assert_allclose(found.scores, [0.9, 0.5, 0.4, *want], rtol=2e-6)
    np.testing.assert_array_equal(found.boxes[:4, 0], np.array([0, 10.5, 20.4, 1], np.float32))


def test_boxes_turned_inside_out_overlap_nothing() -> None:
    """Clipping makes them, where a box lies outside the image; Paddle 3.3.1 keeps all three scores."""
    boxes = np.array([[0, 0, 10, 10], [30, 0, 20, 10], [22, 0, 28, 10]], np.float32)
    np.testing.assert_array_equal(matrix_nms(boxes, FALLING[:3], MatrixNms()).scores, FALLING[:3, 0])


def test_thresholds() -> None:
    far = np.array([[0, 0, 5, 5], [50, 50, 60, 60]], np.float32)
    scores = np.array([[0.25], [0.5]], np.float32)

    def count(**fields: Any) -> int:
        return len(matrix_nms(far, scores, MatrixNms(**fields)))

    assert [count(score_threshold=t) for t in (0.2, 0.25, 0.5)] == [2, 1, 0]
    assert [count(post_threshold=t) for t in (0.2, 0.25, 0.5)] == [2, 1, 0]
    assert [count(post_threshold=t, inclusive=True) for t in (0.25, 0.5, 0.6)] == [2, 1, 0]


def test_top_k_counts_a_class_or_the_image() -> None:
    boxes, scores = crowd()
    per_class = MatrixNms(top_k=10, keep=0, post_threshold=0.0)
    assert len(matrix_nms(boxes, scores, per_class)) == 30
    assert len(matrix_nms(boxes, scores, replace(per_class, ranking="image"))) == 10
    best = np.sort(scores.ravel())[-10:]
    assert len(matrix_nms(boxes, scores, replace(per_class, ranking="image", score_threshold=best[5]))) == 4


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, scores = crowd()
    whole = matrix_nms(boxes, scores, MatrixNms())
    monkeypatch.setattr(module, "_BLOCK", 7)
    parts = matrix_nms(boxes, scores, MatrixNms())
    np.testing.assert_array_equal(parts.scores, whole.scores)
    np.testing.assert_array_equal(parts.boxes, whole.boxes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_not_looked_at_changes_nothing(name: str) -> None:
    """To keep k the best 8 k candidates are tried first, then four times as many: here often fewer than all 120."""
    boxes, scores = crowd()
    options = replace(PUBLISHED[name][0], top_k=0, post_threshold=0.0)
    for keep in (1, 2, 5, 15):
        whole, part = (matrix_nms(boxes, scores, replace(options, keep=k)) for k in (0, keep))
        assert len(whole) > 20
        np.testing.assert_array_equal(part.scores, whole.scores[:keep])
        np.testing.assert_array_equal(part.boxes, whole.boxes[:keep])


@pytest.mark.parametrize("kernel", ["linear", "gaussian"])
def test_the_decay_is_that_of_masks(oracles: Path, kernel: Any) -> None:
    """WXinlong/SOLO's matrix_nms on 60 masks of three classes: overlaps of other classes count as 0."""
    with np.load(oracles / "nms" / "solo_functions.npz") as found:
        masks = np.unpackbits(found["masks"], axis=2).reshape(60, -1).astype(np.float32)
        scores, labels, want = found["scores"], found["labels"], found[f"matrix_{kernel}"]
    shared, area = masks @ masks.T, masks.sum(axis=1)
    overlaps = shared / (area[:, None] + area - shared) * (labels[:, None] == labels)
    np.testing.assert_allclose(scores * decay([overlaps], kernel, 2.0), want, atol=2e-7)
    mixed = shared / (area[:, None] + area - shared)
    assert np.abs(scores * decay([mixed], kernel, 2.0) - want).max() > 1e-2


def test_nothing_found_and_wrong_options() -> None:
    boxes, scores = crowd()
    for nothing in (matrix_nms(boxes, scores * 0, MatrixNms()), matrix_nms(boxes[:0], scores[:0], MatrixNms())):
        assert nothing.boxes.shape == (0, 4)
        assert [a.dtype for a in (nothing.boxes, nothing.scores, nothing.labels)] == ["float32", "float32", "int64"]
    with pytest.raises(PortdetError, match="unknown kernel 'gauss'"):
        MatrixNms(kernel="gauss")  # type: ignore[arg-type]
    with pytest.raises(PortdetError, match="unknown ranking 'all'"):
        MatrixNms(ranking="all")  # type: ignore[arg-type]
