"""PP-YOLO's augmentation against PaddleDetection's own operators with the same draws, hand-computed cases, faults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from portdet.config import AugmentConfig
from portdet.data import augment_ppyolo as ppyolo
from portdet.data import prepare
from portdet.data.prepare import EvalPreparer, Task, TrainPreparer
from portdet.data.random import generator
from portdet.data.records import Dataset, Image, Record
from portdet.data.transforms import normalisation, normalise
from tests.data.ppyolo_augment_case import COUNT, EVAL_SIDE, FILE, LIMIT, MEAN, SIDE, STD, TRIES, Case, case

CONFIG = AugmentConfig(kind="ppyolo", crop_tries=TRIES)
Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def original() -> Arrays:
    """What PaddleDetection's operators gave."""
    with np.load(FILE) as archive:
        return dict(archive)


class Memory:
    """A source of given images."""

    def __init__(self, images: list[Image]) -> None:
        self.images = images

    def read(self, record: Record) -> Image:
        return self.images[record.image_id]

    def segments(self, record: Record) -> list[Any]:
        raise NotImplementedError


def dataset(images: list[Image], boxes: list[NDArray[np.float32]], labels: list[NDArray[np.int32]]) -> Dataset:
    records = []
    for number, (image, corners, classes) in enumerate(zip(images, boxes, labels, strict=True)):
        xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2].astype(np.float64)], 1)
        n = len(classes)
        records.append(
            Record(number, f"{number}", image.shape[1], image.shape[0], xywh, classes, np.zeros(n, bool),
                   np.ones(n), np.arange(n))
        )  # fmt: skip
    return Dataset(records, ("a",) * 7, tuple(range(7)), Memory(images))


@dataclass
class Forced:
    """In place of the generator of an image and of a batch: the second image is the last, the method the case's."""

    number: int

    def integers(self, _: int) -> int:
        return self.number


def prepared(one: Case, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """Our batch of one image from a case's draws: images, boxes, labels, scores, valid, ids, counts."""

    def forced(*key: Any) -> Forced:
        return Forced(one.method if key[-1] == "interpolation" else len(one.images) - 1)

    monkeypatch.setattr(prepare, "generator", forced)
    monkeypatch.setattr(ppyolo, "draw", lambda *_: one.drawn)
    config = CONFIG.model_copy(update={"mixup_epochs": len(one.images) - 1})
    make = TrainPreparer(
        dataset(one.images, one.boxes, one.labels), config, LIMIT, "stretch", normalisation(MEAN, STD), 0
    )
    pixels = np.empty((1, 3, SIDE, SIDE), np.float32)
    return (pixels, *make(Task((0,), SIDE, augmented=True), pixels))


def worst(original: Arrays, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Largest differences over all cases; a wrong number of boxes is infinite."""
    found = {"image": 0.0, "boxes": 0.0, "labels": 0.0, "scores": 0.0}
    for number in range(COUNT):
        images, boxes, labels, scores, valid, _, counts = prepared(case(number), monkeypatch)
        truth = original["gt_bbox"][number]
        there = (truth[:, 2:] > 0).all(1)
        low = truth[:, :2] - truth[:, 2:] / 2
        corners = np.concatenate([low, low + truth[:, 2:]], 1) * SIDE
        found["image"] = max(found["image"], float(np.abs(images[0] - original["image"][number]).max()))
        if not np.array_equal(valid[0], there) or counts[0] != there.sum():
            return found | {"boxes": np.inf}
        found["boxes"] = max(found["boxes"], float(np.abs(boxes[0] - corners)[there].max()))
        found["labels"] = max(found["labels"], float(np.abs(labels[0] - original["gt_class"][number])[there].max()))
        found["scores"] = max(found["scores"], float(np.abs(scores[0] - original["gt_score"][number])[there].max()))
    return found


TOLERANCE = {"image": 1e-5, "boxes": 1e-5, "labels": 0.0, "scores": 0.0}  # normalised values; pixels of 20


def equal(found: dict[str, float]) -> bool:
    return all(found[name] <= limit for name, limit in TOLERANCE.items())


def test_every_case_is_the_originals(original: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    found = worst(original, monkeypatch)
    assert equal(found), found


def test_the_cases_reach_every_path() -> None:
    """Each step both taken and left out, and both kinds of pixels in every interpolation."""
    seen = []
    for number in range(COUNT):
        one = case(number)
        size = ppyolo.extent(*(image.shape[1::-1] for image in one.images))
        boxes = np.concatenate(one.boxes)
        where = ppyolo.place(one.drawn, *size, boxes, CONFIG)
        colour = ppyolo.colours(one.drawn, CONFIG)
        pixels = ppyolo.paint(one.images, one.drawn.share, colour, where, SIDE, one.method)
        left = len(ppyolo.move_boxes(boxes, where, SIDE)[1])
        changes = int((one.drawn.skip >= 0.5).sum())
        seen.append((where.canvas != size, where.crop is not None, where.flip, left < len(boxes), changes))
        assert pixels.dtype == (np.float32 if changes or where.canvas != size else np.uint8)
    for column in list(zip(*seen, strict=True))[:4]:
        assert 8 <= sum(column) <= COUNT - 8
    assert {row[4] for row in seen} == {0, 1, 2, 3, 4}


def reverse(name: str) -> Any:
    return tuple(reversed(getattr(ppyolo, name)))


def without_rounding_down(first: Image, second: Image, share: float) -> Image:
    width, height = ppyolo.extent(first.shape[1::-1], second.shape[1::-1])
    out = np.zeros((height, width, 3), np.float32)
    out[: first.shape[0], : first.shape[1]] = first * np.float32(share)
    out[: second.shape[0], : second.shape[1]] += second * np.float32(1 - share)
    return np.rint(out).astype(np.uint8)


def smallest_overlap(windows: Any, boxes: Any, right: Any = ppyolo.overlaps) -> Any:
    return np.repeat(right(windows, boxes).min(1, keepdims=True), len(boxes), 1)


def any_overlap(windows: Any, boxes: Any, right: Any = ppyolo.overlaps) -> Any:
    return right(windows, boxes) > 0


def bytes_that_wrap(part: Any, where: Any, right: Any = ppyolo._frame) -> Any:
    return right(part, where).astype(np.uint8).astype(np.float32)  # miemiedetection's RandomExpand


def turned_back(change: int, amount: float, right: Any = ppyolo.colour_change) -> Any:
    return right(change, -amount if change == ppyolo.HUE else amount)


def brightness_as_factor(change: int, amount: float, right: Any = ppyolo.colour_change) -> Any:
    return right(ppyolo.CONTRAST if change == ppyolo.BRIGHTNESS else change, amount)


FAULTS: dict[str, tuple[str, Any]] = {
    "fill in BGR": ("FILL", reverse("FILL")),
    "luma in BGR": ("LUMA", reverse("LUMA")),
    "YIQ with I and Q exchanged": ("TO_YIQ", (ppyolo.TO_YIQ[0], ppyolo.TO_YIQ[2], ppyolo.TO_YIQ[1])),
    "hue turned the other way": ("colour_change", turned_back),
    "brightness as a factor": ("colour_change", brightness_as_factor),
    "mixture rounded": ("mix", without_rounding_down),
    "area and cubic exchanged": ("METHODS", tuple(ppyolo.METHODS[i] for i in (0, 1, 3, 2, 4))),
    "every box over the threshold": ("overlaps", smallest_overlap),
    "boxes kept by any overlap": ("holds", any_overlap),
    "thresholds in another order": ("THRESHOLDS", reverse("THRESHOLDS")),
    "crops of another shape": ("CROP_ASPECT", (0.4, 2.5)),
    "bytes after the expansion": ("_frame", bytes_that_wrap),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: str, original: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppyolo, *FAULTS[fault])
    assert not equal(worst(original, monkeypatch))


def test_evaluation_is_the_originals(original: Arrays) -> None:
    """Bicubic of OpenCV whether the image grows or shrinks; the rule of YOLOv3 gives other pixels."""
    images = [case(number).images[0] for number in range(4)]
    boxes, labels = ([getattr(case(number), name)[0] for number in range(4)] for name in ("boxes", "labels"))
    found = {}
    for how in ("stretch_cubic", "stretch"):
        out = np.empty((4, 3, EVAL_SIDE, EVAL_SIDE), np.float32)
        EvalPreparer(dataset(images, boxes, labels), how, normalisation(MEAN, STD))(Task((0, 1, 2, 3), EVAL_SIDE), out)
        found[how] = float(np.abs(out - original["eval"]).max())
    assert found["stretch_cubic"] < 2e-6
    assert found["stretch"] > 0.1


def test_a_float_image_takes_the_same_line_as_a_byte() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    table = normalisation(MEAN, STD)
    out = np.empty((2, 3, 16, 16), np.float32)
    normalise(image, table, out[0])
    normalise(image.astype(np.float32), table, out[1])
    np.testing.assert_allclose(out[1], out[0], rtol=0, atol=1e-6)
    normalise(np.full((1, 1, 3), -300.5, np.float32), table, out[0, :, :1, :1])
    np.testing.assert_allclose(out[0, :, 0, 0], (-300.5 / 255 - np.array(MEAN)) / STD, rtol=1e-6)


def test_mixture_by_hand() -> None:
    first, second = np.full((1, 2, 3), 201, np.uint8), np.full((2, 1, 3), 50, np.uint8)
    # .25 * 201 = 50.25, .75 * 50 = 37.5; together 87.75; each truncated, black where there is neither
    np.testing.assert_array_equal(ppyolo.mix(first, second, 0.25)[..., 0], [[87, 50], [37, 0]])


def test_colours_by_hand() -> None:
    rgb = np.array([100.0, 50.0, 10.0, 1.0])
    grey = 0.299 * 100 + 0.587 * 50 + 0.114 * 10
    want = {
        ppyolo.BRIGHTNESS: [101.25, 51.25, 11.25],
        ppyolo.CONTRAST: [125, 62.5, 12.5],
        ppyolo.SATURATION: [grey + 1.25 * (value - grey) for value in (100, 50, 10)],
    }
    for change, values in want.items():
        np.testing.assert_allclose((ppyolo.colour_change(change, 1.25) @ rgb)[:3], values)
    # half a turn twice is the way to YIQ and back, which the rounded constants leave about 1 % away
    half = ppyolo.colour_change(ppyolo.HUE, 1.0)
    np.testing.assert_allclose(half @ half @ rgb, rgb, atol=1.5)
    turned = (half @ rgb)[:3]
    assert abs(float(turned @ ppyolo.LUMA) - grey) < 0.5
    assert turned.argmax() == 2  # orange's complement is blue


def test_expansion_by_hand() -> None:
    """100 x 50 on a canvas of ratio 2.5, a quarter of the way across and half of the way down."""
    drawn = case(0).drawn._replace(expand=np.array([0.5, 0.5, 0.25, 0.5]), thresholds=np.array([6]), flip=0.7)
    boxes = np.array([[10, 20, 30, 40]], np.float32)
    where = ppyolo.place(drawn, 100, 50, boxes, CONFIG)
    assert where == ppyolo.Place((250, 125), (37, 37), None, False)
    # 250 x 125 on 50: shrunk by 5 and by 2.5
    np.testing.assert_allclose(ppyolo.move_boxes(boxes, where, 50)[0], [[9.4, 22.8, 13.4, 30.8]], rtol=1e-6)
    mirrored = where._replace(flip=True)
    np.testing.assert_allclose(ppyolo.move_boxes(boxes, mirrored, 50)[0], [[36.6, 22.8, 40.6, 30.8]], rtol=1e-6)
    assert ppyolo.place(drawn._replace(expand=np.array([0.49, 0.5, 0, 0])), 100, 50, boxes, CONFIG).canvas == (100, 50)


def test_crop_keeps_boxes_by_their_centres() -> None:
    where = ppyolo.Place((100, 100), (0, 0), (20, 20, 60, 60), False)
    boxes = np.array(
        [[0, 30, 39, 40], [0, 30, 40, 40], [50, 50, 70, 69], [50, 50, 70, 71], [25, 25, 35, 45]], np.float32
    )
    moved, kept = ppyolo.move_boxes(boxes, where, 40)
    # centres at x 19.5 (outside), 20 (on the edge: inside), at 60 (on the far edge: outside) and beyond, at 30
    assert kept.tolist() == [1, 4]
    np.testing.assert_array_equal(moved, [[0, 10, 20, 20], [5, 5, 15, 25]])
    moved, kept = ppyolo.move_boxes(boxes, where._replace(crop=None), 100)
    assert kept.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(moved, boxes)


def test_windows_have_the_originals_ranges() -> None:
    windows = ppyolo.crop_windows(generator(0, 0, 0).random((20_000, 4)), 600, 400)
    size = windows[:, 2:] - windows[:, :2]
    assert windows.min() == 0
    assert (windows[:, 2:] <= [600, 400]).all()
    relative = size / [600, 400]
    aspect = relative[:, 0] / relative[:, 1]
    assert 0.5 * 0.98 < aspect.min() < 0.53
    assert 1.9 < aspect.max() < 2 * 1.02
    side = np.sqrt(relative.prod(1))
    assert 0.29 < side.min() < 0.31
    assert 0.98 < side.max() < 1
    assert ppyolo.crop_windows(np.full((1, 4), 1 - 2**-53), 3, 3).max() <= 3  # the smallest image, the largest draw


def test_draws_have_their_distributions() -> None:
    draws = [ppyolo.draw(CONFIG, generator(0, 0, i)) for i in range(2000)]
    shares = np.array([d.share for d in draws])
    assert abs(shares.mean() - 0.5) < 0.02
    assert abs(shares.var() - 1 / 16) < 0.004  # Beta(a, a): 1 / (8 a + 4)
    assert len({tuple(d.changes) for d in draws}) == 24
    first = np.bincount([d.thresholds[0] for d in draws], minlength=7) / 2000
    assert 0.1 < first.min() <= first.max() < 0.19
    assert {d.crops.shape for d in draws} == {(6, 50, 4)}


def test_a_crop_that_begins_at_the_images_far_edge_is_fill() -> None:
    where = ppyolo.Place((90, 40), (10, 0), (50, 0, 90, 40), False)
    image = np.zeros((40, 40, 3), np.uint8)
    pixels = ppyolo.paint([image], 1.0, None, where, 8, 1)
    np.testing.assert_array_equal(pixels, np.full((8, 8, 3), ppyolo.FILL, np.float32))


def test_box_follows_a_drawn_rectangle() -> None:
    """Whatever is drawn: what is left of a white rectangle on black lies where its box says."""
    config = CONFIG.model_copy(update={"distort": 0.0})
    for index in range(60):
        rng = generator(3, 0, index)
        x, y, w, h = rng.integers([4, 4, 12, 12], [40, 30, 36, 26]).tolist()
        image = np.zeros((60, 80, 3), np.uint8)
        image[y : y + h, x : x + w] = 255
        boxes = np.array([[x, y, x + w, y + h]], np.float32)
        drawn = ppyolo.draw(config, rng)
        where = ppyolo.place(drawn, 80, 60, boxes, config)
        pixels = ppyolo.paint([image], 1.0, None, where, 96, ppyolo.LINEAR)
        moved, kept = ppyolo.move_boxes(boxes, where, 96)
        assert len(kept) == 1
        bx, by, bw, bh = cv2.boundingRect((pixels > 190).all(-1).astype(np.uint8))
        # an edge is blurred by about the magnification of a pixel
        x1, y1, x2, y2 = where.window
        np.testing.assert_allclose(moved[0], [bx, by, bx + bw, by + bh], atol=1 + 96 / min(x2 - x1, y2 - y1))
