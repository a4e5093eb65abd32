"""Augmentation and transforms against re-derivations for each pixel, Pillow, OpenCV, and drawn rectangles."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow

from portdet.config import AugmentConfig
from portdet.data.augment import (
    Place,
    augment,
    draw_colours,
    draw_places,
    over_one_pixel,
    paste,
    place_boxes,
    shift_colours,
)
from portdet.data.random import generator
from portdet.data.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    evaluation_method,
    fit_boxes,
    letterbox,
    letterbox_place,
    normalisation,
    normalise,
    resize,
    restore_boxes,
    stretch,
)

CONFIG = AugmentConfig()
Picture = NDArray[np.uint8]


def picture(height: int = 60, width: int = 80, seed: int = 0) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def original_colours(image: Picture, hue: float, saturation: float, value: float) -> Picture:
    """The arithmetic for each pixel, on the whole float image."""
    x = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL) / 255.0
    x[..., 0] += hue
    x[..., 0][x[..., 0] > 1] -= 1
    x[..., 0][x[..., 0] < 0] += 1
    x[..., 1] *= saturation
    x[..., 2] *= value
    x[x > 1] = 1
    x[x < 0] = 0
    return np.asarray(cv2.cvtColor((x * 255.0).astype(np.uint8), cv2.COLOR_HSV2RGB_FULL))


@given(st.floats(-0.1, 0.1), st.floats(0.6, 1.5), st.floats(0.6, 1.5))
def test_colour_tables_are_the_arithmetic_for_each_pixel(hue: float, saturation: float, value: float) -> None:
    image = picture()
    np.testing.assert_array_equal(
        shift_colours(image, hue, saturation, value), original_colours(image, hue, saturation, value)
    )


def test_hue_goes_round_the_circle_the_right_way() -> None:
    red = np.full((1, 1, 3), (200, 20, 20), np.uint8)
    got = shift_colours(red, 1 / 3, 1.0, 1.0)[0, 0]
    want = 255 * np.array(colorsys.hsv_to_rgb(1 / 3, 0.9, 200 / 255))
    np.testing.assert_allclose(got, want, atol=4)  # green; 8-bit HSV and truncation
    assert shift_colours(red, -0.1, 1.0, 1.0)[0, 0].argmin() == 1  # towards blue: wraps below 0


def test_colour_draws_keep_their_ranges_and_reach_both_sides() -> None:
    draws = np.array([draw_colours(CONFIG, generator(0, 0, i)) for i in range(2000)])
    assert np.abs(draws[:, 0]).max() <= 0.1
    assert draws[:, 0].min() < -0.09
    assert draws[:, 0].max() > 0.09
    assert draws[:, 1].min() >= 1 / 1.5
    assert draws[:, 1].max() <= 1.5
    assert 0.45 < (draws[:, 1] > 1).mean() < 0.55
    np.testing.assert_array_equal(draws[:, 2], 1.0)  # value 1: unchanged, as upstream's default


def test_places_have_the_originals_distribution() -> None:
    places = [p for i in range(300) for p in draw_places(416, CONFIG, generator(0, 0, i))[1:]]
    sides = np.array([max(p.width, p.height) for p in places])
    aspects = np.array([p.width / p.height for p in places])
    assert 0.25 * 416 - 1 <= sides.min() < 0.27 * 416
    assert 1.98 * 416 < sides.max() <= 2 * 416
    assert 0.7 / 1.3 * 0.97 < aspects.min() < 0.6
    assert 1.7 < aspects.max() < 1.3 / 0.7 * 1.03
    for place in places:  # a smaller image lies inside, a larger one covers the input
        for start, extent in ((place.left, place.width), (place.top, place.height)):
            assert min(0, 416 - extent) <= start <= max(0, 416 - extent)


@pytest.mark.parametrize(
    "place", [Place(5, 7, 20, 30), Place(-13, -4, 70, 90), Place(-13, 9, 70, 20), Place(0, 0, 48, 48)]
)
def test_paste_is_what_pillow_does(place: Place) -> None:
    image = picture(place.height, place.width)
    want = Pillow.new("RGB", (48, 48), (128, 128, 128))
    want.paste(Pillow.fromarray(image), (place.left, place.top))
    np.testing.assert_array_equal(paste(image, place, 48), np.asarray(want))


def test_boxes_placed_by_hand() -> None:
    # 100x50 drawn at (10, -20) as 200x100 in 120: factor 2 both ways
    boxes = np.array([[5, 20, 30, 40], [60, 5, 90, 12]], np.float32)
    place = Place(10, -20, 200, 100)
    np.testing.assert_array_equal(
        place_boxes(boxes, place, 100, 50, 120, flip=False), [[20, 20, 70, 60], [120, 0, 120, 4]]
    )
    np.testing.assert_array_equal(place_boxes(boxes, place, 100, 50, 120, flip=True), [[50, 20, 100, 60], [0, 0, 0, 4]])


rectangles = st.tuples(st.integers(4, 40), st.integers(4, 30), st.integers(12, 36), st.integers(12, 26))


@given(rectangles, st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_box_follows_a_drawn_rectangle(rectangle: tuple[int, int, int, int], index: int) -> None:
    x, y, w, h = rectangle
    image = np.zeros((60, 80, 3), np.uint8)
    image[y : y + h, x : x + w] = 255
    boxes = np.array([[x, y, x + w, y + h]], np.float32)
    done = augment(image, boxes, 96, CONFIG, 50, generator(0, 1, index))
    assert ((done.boxes >= 0) & (done.boxes <= 96)).all()
    assert over_one_pixel(done.boxes).all()
    bright = (done.image > 190).all(-1).astype(np.uint8)  # grey padding is 128
    bx, by, bw, bh = cv2.boundingRect(bright)
    # resampling blurs an edge by about the magnification of a pixel, 2 * 96 / 60 at most
    np.testing.assert_allclose(done.boxes[0], [bx, by, bx + bw, by + bh], atol=3.3)


@given(st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_a_flipped_draw_mirrors_the_unflipped(index: int) -> None:
    boxes = np.array([[5, 5, 60, 50], [20, 30, 75, 58]], np.float32)
    plain, mirror = (
        augment(picture(), boxes, 96, AugmentConfig(flip=p), 50, generator(0, 0, index)) for p in (0.0, 1.0)
    )
    np.testing.assert_array_equal(mirror.image, plain.image[:, ::-1])
    np.testing.assert_array_equal(mirror.kept, plain.kept)
    np.testing.assert_allclose(mirror.boxes[:, [2, 0]], 96 - plain.boxes[:, [0, 2]], atol=1e-4)


def test_flip_twice_is_the_start() -> None:
    boxes = np.array([[5, 5, 60, 50], [20, 30, 75, 58]], np.float32)
    place = Place(0, 0, 96, 96)
    once = place_boxes(boxes, place, 96, 96, 96, flip=True)
    np.testing.assert_array_equal(place_boxes(once, place, 96, 96, 96, flip=True), boxes)


def test_same_draw_same_bits_and_other_draw_other_bits() -> None:
    boxes = np.array([[5, 5, 60, 50]], np.float32)
    a, b, c = (augment(picture(), boxes, 96, CONFIG, 50, generator(0, 0, i)) for i in (4, 4, 5))
    np.testing.assert_array_equal(a.image, b.image)
    assert (a.image != c.image).any()


def test_a_box_that_most_places_lose_falls_back_to_the_plain_resize() -> None:
    boxes = np.array([[0, 0, 0.5, 0.5]], np.float32)  # under a pixel even when the image is doubled
    config = AugmentConfig(scale=(0.3, 0.3), flip=0)
    done = augment(picture(96, 96), boxes, 96, config, 50, generator(0, 0, 0))
    assert len(done.boxes) == 0
    boxes = np.array([[0, 0, 1.5, 1.5]], np.float32)  # over a pixel only at full size
    done = augment(picture(96, 96), boxes, 96, config, 50, generator(0, 0, 0))
    np.testing.assert_array_equal(done.boxes, boxes)


def test_more_boxes_than_the_limit_are_cut_after_a_shuffle() -> None:
    boxes = np.tile(np.array([[5, 5, 75, 55]], np.float32), (9, 1))
    kept = [set(augment(picture(), boxes, 96, CONFIG, 4, generator(0, 0, i)).kept.tolist()) for i in range(30)]
    assert {len(k) for k in kept} == {4}
    assert set.union(*kept) == set(range(9))


@pytest.mark.parametrize(
    ("method", "name"), [(0, "NEAREST"), (1, "BILINEAR"), (2, "BICUBIC"), (3, "NEAREST"), (4, "LANCZOS")]
)
def test_methods_are_pillows(method: int, name: str) -> None:
    image = picture()
    want = Pillow.fromarray(image).resize((33, 47), Pillow.Resampling[name])
    np.testing.assert_array_equal(resize(image, 33, 47, method), np.asarray(want))


def test_pillow_and_opencv_differ_when_shrinking() -> None:
    image = picture()
    other = cv2.resize(image, (33, 24), interpolation=cv2.INTER_LINEAR)
    assert np.abs(resize(image, 33, 24, 1).astype(int) - other).max() > 20


@pytest.mark.parametrize(
    ("width", "height", "method"), [(40, 30, 2), (96, 30, 1), (30, 200, 1), (200, 97, 0), (96, 96, 1), (200, 96, 1)]
)
def test_evaluation_method(width: int, height: int, method: int) -> None:
    assert evaluation_method(width, height, 96) == method
    want = Pillow.fromarray(picture(height, width)).resize((96, 96), [0, 2, 3][method])  # Pillow's own numbers
    np.testing.assert_array_equal(stretch(picture(height, width), 96), np.asarray(want))


def test_normalisation_is_exact() -> None:
    image = picture()
    out = np.empty((3, 60, 80), np.float32)
    normalise(image, normalisation(IMAGENET_MEAN, IMAGENET_STD), out)
    want = (image / 255.0 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    np.testing.assert_array_equal(out, want.transpose(2, 0, 1).astype(np.float32))
    normalise(image, normalisation((0, 0, 0), (1, 1, 1)), out)
    np.testing.assert_array_equal(out, (image.transpose(2, 0, 1) / 255.0).astype(np.float32))


def test_letterbox_by_hand() -> None:
    assert letterbox_place(768, 576, 416) == (0, 52, 416, 312)  # darknet's dog.jpg
    assert letterbox_place(100, 200, 96) == (24, 0, 48, 96)
    out = letterbox(np.full((50, 100, 3), 255, np.uint8), 96)
    assert (out[24:72] == 255).all()
    assert (out[:24] == 128).all()
    assert (out[72:] == 128).all()


@given(st.integers(10, 900), st.integers(10, 900), st.sampled_from(["stretch", "letterbox"]))
def test_boxes_come_back(width: int, height: int, how: str) -> None:
    boxes = np.array([[0, 0, width, height], [1, 2, 7, 9]], np.float32)
    fitted = fit_boxes(boxes, width, height, 416, how)
    assert fitted.min() >= 0
    assert fitted.max() <= 416.001
    np.testing.assert_allclose(
        restore_boxes(fitted, width, height, 416, how), boxes, atol=1e-2 * max(width, height) / 400
    )
