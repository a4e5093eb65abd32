"""The confusion matrix, counted by hand."""

from __future__ import annotations

import numpy as np

from portdet.evaluate.confusion import confusion


def test_counts_by_hand() -> None:
    def box(x: float) -> list[float]:
        return [x, 0.0, 10.0, 10.0]

    ground = {
        "categories": [{"id": 5, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"image_id": 1, "category_id": 5, "bbox": box(0)},
            {"image_id": 1, "category_id": 3, "bbox": box(50)},
            {"image_id": 1, "category_id": 3, "bbox": box(90)},
            {"image_id": 2, "category_id": 5, "bbox": box(0), "iscrowd": 1},
        ],
    }
    found = [
        {"image_id": 1, "category_id": 5, "bbox": box(1), "score": 0.9},  # cat as cat
        {"image_id": 1, "category_id": 5, "bbox": box(2), "score": 0.95},  # overlaps the same cat less: background
        {"image_id": 1, "category_id": 5, "bbox": box(51), "score": 0.5},  # dog as cat
        {"image_id": 2, "category_id": 3, "bbox": box(0), "score": 0.5},  # nothing there but a crowd
        {"image_id": 1, "category_id": 3, "bbox": box(90), "score": 0.2},  # below the score: the dog is missed
    ]
    got = confusion(ground, found, conf=0.25, overlap=0.5)
    np.testing.assert_array_equal(got, [[1, 1, 1], [0, 0, 1], [0, 1, 0]])
    assert confusion(ground, [], conf=0.25).tolist() == [[0, 0, 0], [0, 0, 0], [1, 2, 0]]
