"""Pictures: drawn where they should be, whole files, no crash where data is missing."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from portdet.evaluate.coco_map import NAMES, evaluate
from portdet.report import plots
from portdet.report.align_run import AlignRun, BackendRun
from portdet.report.colours import colour
from portdet.report.draw import Boxes, draw_boxes, encode, mosaic, save, side_by_side, train_batch

GREY = np.full((60, 100, 3), 128, np.uint8)
ONE = Boxes(np.array([[20.0, 25, 70, 50]]), np.array([1]), np.array([0.9]))


def test_box_is_drawn_at_its_place_in_its_class_colour() -> None:
    out = draw_boxes(GREY, ONE, ["a", "b"])
    assert out.shape == GREY.shape
    assert (GREY == 128).all()  # the input is not touched
    for x, y in ((20, 40), (70, 40), (45, 50)):
        assert tuple(out[y, x]) == colour(1)
    assert tuple(out[40, 45]) == tuple(out[55, 90]) == (128, 128, 128)
    assert (out[:24, 20:60] == colour(1)).all(-1).any()  # the tab with the name, above the box
    assert draw_boxes(GREY, ONE, ["a", "b"], side=200).shape == (120, 200, 3)


def test_tab_stays_inside_the_picture() -> None:
    corner = Boxes(np.array([[90.0, 0, 99, 8], [-5, -5, 300, 300]]), np.array([0, 7]))
    out = draw_boxes(GREY, corner, ["a rather long name"])
    assert (out[:20, 40:] == colour(0)).all(-1).sum() > 200


def test_colours_differ_and_never_change() -> None:
    assert len({colour(i) for i in range(80)}) == 80
    assert colour(0) == (0, 114, 178)


def test_above_keeps_the_best_on_top() -> None:
    three = Boxes(np.zeros((3, 4)), np.arange(3), np.array([0.9, 0.1, 0.5]))
    assert three.above(0.25).labels.tolist() == [2, 0]


def test_mosaics(tmp_path: Path) -> None:
    assert mosaic([GREY] * 5, ["name"] * 5, columns=4, cell=100).shape == (266, 430, 3)
    pairs = side_by_side([GREY] * 3, [ONE] * 3, {"found": [ONE] * 3}, ["a", "b"], ["x"] * 3, cell=100)
    assert 2 * 100 < pairs.shape[0] < 3 * 100  # two pairs in a row
    assert 4 * 100 < pairs.shape[1] < 5 * 100
    three = side_by_side([GREY] * 2, [ONE] * 2, {"torch": [ONE] * 2, "paddle": [ONE] * 2}, ["a"], ["x"] * 2, cell=100)
    assert 3 * 100 < three.shape[1] < 4 * 100
    save(tmp_path / "val_batch.jpg", pairs)
    assert Image.open(tmp_path / "val_batch.jpg").size == pairs.shape[1::-1]
    assert len(encode(pairs, width=50)) < len(encode(pairs))


def test_train_batch_undoes_the_normalisation() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    rgb = np.array([200, 100, 50])
    images = np.zeros((1, 3, 64, 64), np.float32) + ((rgb / 255 - mean) / std).reshape(1, 3, 1, 1).astype(np.float32)
    out = train_batch(images, [Boxes(np.zeros((0, 4)), np.zeros(0, int))], [], ["x"], mean=mean, std=std, cell=64)
    assert tuple(out[24 + 6 + 32, 6 + 32]) == tuple(rgb)


def rows(epochs: int) -> list[dict[str, float]]:
    return [
        {"epoch": e, "time": e, "step": e, "lr": 0.1, "loss": 1000.0 / e, "xy": 3.0 / e, "images_per_s": 9.0}
        | dict.fromkeys(NAMES, -1.0 if e == 1 else e / 10)
        for e in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [0, 1, 5])
def test_run_pictures(tmp_path: Path, epochs: int) -> None:
    backends = [BackendRun(n, "1", "cpu", 1.0, rows(epochs), [5.0] * epochs) for n in ("torch", "paddle")]
    plots.results(tmp_path / "results.png", rows(epochs))
    plots.side_by_side(tmp_path / "both.png", AlignRun("tiny", "rule", "verdict", backends))
    for name in ("results.png", "both.png"):
        assert Image.open(tmp_path / name).width > 1000
    assert len(list(tmp_path.iterdir())) == 2  # no temporary file stays


@pytest.mark.parametrize(("low", "high", "shown"), [(5, 1000, "100"), (21, 48, "30"), (0.02, 30, "0.1")])
def test_numbers_of_a_logarithmic_axis_are_numbers(tmp_path: Path, low: float, high: float, shown: str) -> None:
    losses = list(np.linspace(low, high, 20))
    backends = [BackendRun("torch", "1", "cpu", 1.0, rows(3), losses)]
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # texts stay texts
        plots.side_by_side(tmp_path / "both.svg", AlignRun("tiny", "rule", "verdict", backends))
        plots.results(tmp_path / "results.svg", rows(3))
    written = (tmp_path / "both.svg").read_text()
    assert f">{shown}</text>" in written
    assert "$" not in written + (tmp_path / "results.svg").read_text()


def test_label_and_score_pictures(tmp_path: Path) -> None:
    ground = {
        "images": [{"id": 9, "width": 100, "height": 60}, {"id": 4, "width": 50, "height": 50}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "none"}],
        "annotations": [{"id": 1, "image_id": 9, "category_id": 3, "bbox": [10, 10, 40, 40]}],
    }
    scores = evaluate(ground, [{"image_id": 9, "category_id": 3, "bbox": [10, 10, 40, 40], "score": 0.5}])
    plots.labels(tmp_path / "labels.png", ground)
    plots.labels(tmp_path / "empty.png", ground | {"annotations": []})
    plots.precision_recall(tmp_path / "pr.png", scores)
    plots.precision_recall(tmp_path / "pr0.png", evaluate(ground | {"annotations": []}, []))
    plots.confusion(tmp_path / "confusion.png", np.array([[3, 0, 1], [0, 0, 0], [2, 0, 0]]), ["cat", "none"])
    assert all(Image.open(p).width > 300 for p in tmp_path.iterdir())
