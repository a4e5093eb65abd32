"""COCO's metric: average precision by hand, pycocotools' own summary, and hotcoco's bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from portdet.errors import PortdetError
from portdet.evaluate.coco_map import NAMES, ClassScore, evaluate, text
from portdet.postprocess.detections import to_coco
from portdet.postprocess.yolov3 import detections
from portdet.session import Array

Rows = list[dict[str, Any]]


def truth(*rows: tuple[int, int, list[float]], classes: tuple[int, ...] = (1, 2), images: int = 3) -> dict[str, Any]:
    return {
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": k, "name": f"class {k}"} for k in classes],
        "annotations": [
            {"id": n, "image_id": i, "category_id": k, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for n, (i, k, box) in enumerate(rows)
        ],
    }


def found(*rows: tuple[int, int, list[float], float]) -> Rows:
    return [{"image_id": i, "category_id": k, "bbox": box, "score": s} for i, k, box, s in rows]


def scene(seed: int, images: int = 40, classes: int = 7) -> tuple[dict[str, Any], Rows]:
    """Ground truth with crowds and detections that are near, doubled, of a wrong class, or nowhere; tied scores."""
    rng = np.random.RandomState(seed)
    rows, dets = [], []
    for image in range(images):
        for _ in range(rng.randint(0, 12)):
            box = [*(rng.rand(2) * 300), *(2 + rng.rand(2) ** 3 * 250)]
            label = int(rng.randint(1, classes))  # the last class has no ground truth
            rows.append((image, label, [float(v) for v in box]))
            for _ in range(rng.randint(0, 4)):
                near = np.array(box) + rng.randn(4) * 0.08 * np.array(box[2:] * 2)
                k = label if rng.rand() < 0.8 else int(rng.randint(1, classes + 1))
                dets.append((image, k, [float(v) for v in near], float(round(rng.rand(), 2))))
    ground = truth(*rows, classes=tuple(range(1, classes + 1)), images=images)
    for annotation in ground["annotations"][::9]:
        annotation["iscrowd"] = 1
    return ground, found(*dets)


def test_average_precision_by_hand() -> None:
    """Two boxes; best detection wrong, second right, third right: precision 1/2 at recall 1/2, 2/3 at 1.

    Interpolated precision is the largest at or above a recall: 2/3 everywhere. Without the third: 1/2 for the 51
    recalls up to .5, 0 for the other 50.
    """
    a, b, nowhere = [0.0, 0, 40, 40], [100.0, 0, 40, 40], [200.0, 200, 40, 40]
    ground = truth((0, 1, a), (1, 1, b), classes=(1,))
    three = found((0, 1, nowhere, 0.9), (0, 1, a, 0.8), (1, 1, b, 0.7))
    scores = evaluate(ground, three)
    assert [scores.numbers["AP50"], scores.numbers["AP"]] == pytest.approx([2 / 3, 2 / 3], abs=1e-12)
    assert evaluate(ground, three[:2]).numbers["AP50"] == pytest.approx(0.5 * 51 / 101, abs=1e-12)
    assert scores.precision.shape == (1, 101)
    assert scores.numbers["AR1"] == 0.5  # the one best detection of image 0 is wrong, of image 1 right
    assert scores.classes[0].boxes == 2


def test_overlap_decides_which_thresholds_count() -> None:
    """Shifted by a quarter: overlap 30/50 = .6, so right at .50, .55 and .60 only: AP .3."""
    ground = truth((0, 1, [0.0, 0, 40, 40]), classes=(1,))
    numbers = evaluate(ground, found((0, 1, [10.0, 0, 40, 40], 0.9))).numbers
    assert [numbers["AP50"], numbers["AP75"], numbers["AP"]] == pytest.approx([1.0, 0.0, 0.3], abs=1e-12)


def test_perfect_predictions_give_one_and_missing_sizes_are_na() -> None:
    ground = truth((0, 1, [0.0, 0, 40, 40]), (1, 2, [5.0, 5, 200, 200]), (2, 2, [50.0, 5, 120, 300]))
    perfect = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.5}
        for a in ground["annotations"]
    ]
    numbers = evaluate(ground, perfect).numbers
    assert {name for name in NAMES if abs(numbers[name] - 1) < 1e-12} == set(NAMES) - {"APs", "ARs"}
    assert (text(numbers["APs"]), text(numbers["AP"])) == ("n/a", "1.000")


def test_class_without_ground_truth_is_not_averaged() -> None:
    a = [0.0, 0, 40, 40]
    scores = evaluate(truth((0, 2, a)), found((0, 2, a, 0.9), (0, 1, a, 0.9)))
    assert scores.classes[0] == ClassScore("class 1", 0, -1.0, -1.0)
    assert [scores.classes[1].ap, scores.classes[1].ap50, scores.numbers["AP"]] == pytest.approx([1, 1, 1], abs=1e-12)


def test_nothing_found_and_nothing_there() -> None:
    a = [0.0, 0, 40, 40]
    assert evaluate(truth((0, 1, a)), []).numbers["AP"] == 0.0
    empty = evaluate(truth(), found((0, 1, a, 0.5)))
    assert set(empty.numbers.values()) == {-1.0}
    assert evaluate(truth(), []).numbers["AR100"] == -1.0


def test_ids_and_order_of_categories_are_free() -> None:
    ground, dets = scene(1)
    want = evaluate(ground, dets)
    ids = {i: 10**12 - 7 * (40 - i) if i % 2 else i - 500 for i in range(40)}
    ranks = sorted(range(40), key=lambda i: ids[i])
    ids = dict(zip(range(40), sorted(ids[i] for i in ranks), strict=True))  # odd values, same order
    moved = ground | {
        "images": [{"id": ids[i["id"]]} for i in ground["images"]],
        "annotations": [a | {"image_id": ids[a["image_id"]]} for a in ground["annotations"]],
        "categories": ground["categories"][::-1],
    }
    got = evaluate(moved, [d | {"image_id": ids[d["image_id"]]} for d in dets])
    assert got.numbers == want.numbers
    assert got.classes == want.classes[::-1]
    np.testing.assert_array_equal(got.precision, want.precision[::-1])


def test_numbers_are_those_of_pycocotools(capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools import coco, cocoeval

    ground, dets = scene(2)
    for number, annotation in enumerate(ground["annotations"]):
        annotation["id"] = number + 1
    side = coco.COCO()
    side.dataset = ground
    side.createIndex()
    run = cocoeval.COCOeval(side, side.loadRes([dict(d) for d in dets]), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    capsys.readouterr()
    scores = evaluate(ground, dets)
    assert capsys.readouterr().out == ""
    assert list(scores.numbers.values()) == run.stats.tolist()
    assert 0.1 < scores.numbers["AP"] < 0.9
    shifted = [d | {"bbox": [d["bbox"][0] + 5, *d["bbox"][1:]]} for d in dets]
    assert list(evaluate(ground, shifted).numbers.values()) != run.stats.tolist()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("max_det", [100, 5])
def test_hotcoco_gives_the_same_bits(seed: int, max_det: int) -> None:
    ground, dets = scene(seed, images=1 + 15 * seed)
    a, b = (evaluate(ground, dets, max_det=max_det, evaluator=e) for e in ("pycocotools", "hotcoco"))
    assert a.numbers == b.numbers
    assert a.classes == b.classes
    assert same_bits(a.precision, b.precision)
    assert same_bits(a.scores, b.scores)
    assert evaluate(ground, [], evaluator="hotcoco").numbers == evaluate(ground, []).numbers


def same_bits(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and np.ascontiguousarray(a).tobytes() == b.tobytes()


def test_max_det_limits_what_counts() -> None:
    a = [0.0, 0, 40, 40]
    dets = found((0, 1, [200.0, 200, 40, 40], 0.9), (0, 1, a, 0.8))
    ap50 = [evaluate(truth((0, 1, a)), dets, max_det=m).numbers["AP50"] for m in (1, 2)]
    assert ap50 == pytest.approx([0.0, 0.5], abs=1e-12)


def test_nms_may_stop_at_max_det() -> None:
    """Boxes that NMS leaves out beyond `max_det` per class are those that the metric never looks at."""
    rng = np.random.RandomState(4)
    decoded = rng.rand(3, 600, 7).astype(np.float32)
    decoded[..., 2:4] *= 0.2
    decoded[..., 4] = decoded[..., 4].round(2)
    sizes = np.full((3, 2), 200)
    every, some, fewer = (
        to_coco(dict(enumerate(detections(decoded, sizes, nms_threshold=0.7, limit=limit))), [1, 2])
        for limit in (0, 20, 10)
    )
    ground = truth(*((r["image_id"], r["category_id"], r["bbox"]) for r in every[::9]))
    whole, limited, short = (evaluate(ground, rows, max_det=20) for rows in (every, some, fewer))
    assert len(every) > 2 * len(some)
    assert whole.numbers == limited.numbers != short.numbers
    assert same_bits(whole.scores, limited.scores)
    assert whole.numbers["AR100"] > 0.05


def test_errors_name_the_value() -> None:
    with pytest.raises(PortdetError, match="image_id 77"):
        evaluate(truth(), found((77, 1, [0.0, 0, 1, 1], 0.5)))
    with pytest.raises(PortdetError, match="category_id 9"):
        evaluate(truth(), found((0, 9, [0.0, 0, 1, 1], 0.5)))
    with pytest.raises(PortdetError, match="did you mean 'hotcoco'"):
        evaluate(truth(), [], evaluator="hotcocos")  # type: ignore[arg-type]
