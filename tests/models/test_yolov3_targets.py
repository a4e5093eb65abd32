"""Targets and loss against a plain loop over boxes, written from the papers' and mindspore-ai/models' rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from portdet.assign.yolov3 import assign, box_targets, cells
from portdet.models import load_model
from portdet.models.yolov3 import ANCHORS

bce = torch.nn.functional.binary_cross_entropy_with_logits

STRIDES = (32, 16, 8)
SIDES = (96, *range(320, 609, 32))
Array = np.ndarray[Any, Any]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("stride", STRIDES)
def test_cell_is_that_of_the_exact_product(side: int, stride: int) -> None:
    """Every whole and half pixel; the product of a float32 and a small int is exact in float64."""
    centre = np.arange(0, side, 0.5, dtype=np.float32) / np.float32(side)
    grid = side // stride
    exact = np.floor(centre.astype(np.float64) * grid)
    got = cells(centre[None, :, None].repeat(2, 2), np.array([grid, grid], np.float32))
    np.testing.assert_array_equal(got[0, :, 0], exact)
    assert got.dtype == np.float32


def test_the_rounded_product_alone_would_miss_cells() -> None:
    """The correction is needed: without it some whole pixels change cells."""
    wrong = 0
    for side in SIDES:
        centre = np.arange(side, dtype=np.float32) / np.float32(side)
        for grid in (np.float32(side // stride) for stride in STRIDES):
            wrong += int((np.floor(centre * grid) != np.floor(centre.astype(np.float64) * float(grid))).sum())
    assert wrong > 0


def random_boxes(seed: int, width: int, height: int, count: int = 24) -> tuple[Array, Array, Array]:
    """Two images of boxes of all sizes; every third repeats an earlier place with another size and class."""
    random = np.random.default_rng(seed)
    size = np.exp(random.uniform(np.log(4), np.log(min(width, height)), (2, count, 2)))
    centre = random.uniform(0, 1, (2, count, 2)) * (width, height)
    for i in range(2, count, 3):
        centre[:, i], size[:, i] = centre[:, i - 2], size[:, i - 2] * random.uniform(0.98, 1.02, (2, 2))
    corners = np.concatenate([centre - size / 2, centre + size / 2], axis=2)
    boxes = np.clip(corners, 0, (width, height, width, height)).astype(np.float32)
    labels = random.integers(0, 4, (2, count)).astype(np.int32)
    return boxes, labels, random.random((2, count)) < 0.85


def loop_targets(
    boxes: Array, labels: Array, valid: Array, width: int, height: int, classes: int, smooth: float, rounded: bool
) -> list[Array]:
    """y_true of one image for strides 32, 16, 8: (rows, columns, 3, 5 + classes), box in shares."""
    truth = [np.zeros((height // s, width // s, 3, 5 + classes)) for s in STRIDES]
    for (x1, y1, x2, y2), label, ok in zip(boxes, labels, valid, strict=True):
        if not ok:
            continue
        cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
        if rounded:
            cx, cy = np.floor(cx), np.floor(cy)
        w, h = x2 - x1, y2 - y1
        overlap = []
        for aw, ah in ANCHORS:
            inter = min(w, aw) * min(h, ah)
            overlap.append(inter / (w * h + aw * ah - inter))
        best = overlap.index(max(overlap))
        y = truth[2 - best // 3]
        share = [np.float32(v) for v in (cx / np.float32(width), cy / np.float32(height), w / width, h / height)]
        row, column = int(float(share[1]) * y.shape[0]), int(float(share[0]) * y.shape[1])
        cell = y[row, column, best % 3]
        cell[0:4] = share
        cell[4] = 1
        if smooth:
            cell[5:] = smooth / (classes - 1)
            cell[5 + label] = 1 - smooth
        else:
            cell[5 + label] = 1
    return truth


def spec_targets(
    boxes: Array, labels: Array, valid: Array, width: int, height: int, classes: int, smooth: float, rounded: bool
) -> list[Array]:
    """The same arrays from the spec's targets, for both images."""
    images = np.zeros((len(boxes), 3, height, width))
    place, _, best = box_targets(boxes, images, ANCHORS, rounded)
    made = []
    for level, stride in enumerate(STRIDES):
        grid = (height // stride, width // stride)
        head = np.zeros((len(boxes), 1, *grid))
        row, winner, offset, targets = assign(head, place, best, labels, valid, 6 - 3 * level, classes, smooth)
        y = np.zeros((len(boxes), grid[0] * grid[1] * 3, 5 + classes))
        for image, box in zip(*np.nonzero(winner), strict=True):
            cell = y[image, row[image, box]]
            assert cell[4] == 0, "two winners in one place"
            cell[0:4], cell[4], cell[5:] = place[image, box], 1, targets[image, box]
            column = row[image, box] // 3 % grid[1]
            line = row[image, box] // 3 // grid[1]
            np.testing.assert_allclose(
                (offset[image, box] + (column, line)) / grid[::-1], place[image, box, 0:2], rtol=2e-6, atol=1e-7
            )
        made.append(y.reshape(len(boxes), *grid, 3, 5 + classes))
    return made


@pytest.mark.parametrize("smooth", [0.0, 0.1])
@pytest.mark.parametrize("rounded", [True, False])
@pytest.mark.parametrize(("width", "height"), [(416, 416), (128, 96)])
def test_targets_equal_the_loop(width: int, height: int, rounded: bool, smooth: float) -> None:
    collisions = 0
    for seed in range(5):
        boxes, labels, valid = random_boxes(seed, width, height)
        got = spec_targets(boxes, labels, valid, width, height, 4, smooth, rounded)
        for image in range(2):
            loop = loop_targets(boxes[image], labels[image], valid[image], width, height, 4, smooth, rounded)
            for level in range(3):
                np.testing.assert_allclose(got[level][image], loop[level], rtol=2e-7, atol=0)
            collisions += int(valid[image].sum() - sum(y[..., 4].sum() for y in loop))
    assert collisions > 10


def test_golden_positives() -> None:
    """Where the three boxes of the golden fixture land in mindspore-ai/models."""
    boxes = np.array([[[10, 20, 41, 63], [50, 5, 90, 40], [3, 3, 9, 8]]], np.float32)
    labels = np.array([[1, 2, 0]], np.int32)
    got = spec_targets(boxes, labels, np.ones((1, 3), bool), 96, 96, 3, 0.0, True)
    found = [(level, *map(int, place[1:])) for level in range(3) for place in np.argwhere(got[level][..., 4])]
    assert found == [(1, 2, 1, 0), (2, 0, 0, 0), (2, 2, 8, 2)]
    np.testing.assert_allclose(got[1][0, 2, 1, 0, :4], [0.2604167, 0.4270833, 0.3229167, 0.4479167], atol=5e-8)
    np.testing.assert_allclose(got[2][0, 0, 0, 0, :4], [0.0625, 0.0520833, 0.0625, 0.0520833], atol=5e-8)
    np.testing.assert_allclose(got[2][0, 2, 8, 2, :4], [0.7291667, 0.2291667, 0.4166667, 0.3645833], atol=5e-8)
    assert got[1][0, 2, 1, 0, 5:].tolist() == [0, 1, 0]


def loop_loss(
    heads: list[Array],
    truth: list[list[Array]],
    everyone: list[Array],
    size: tuple[int, int],
    threshold: float,
    size_loss: str = "squared",
) -> dict[str, float]:
    """mindspore-ai/models' loss with torch's functions, one image and level at a time; `everyone`: boxes that spare
    background at all levels, empty lists: only the level's own."""
    width, height = size
    sums = dict.fromkeys(("xy", "wh", "obj", "cls"), 0.0)
    for level, head in enumerate(heads):
        anchors = torch.tensor(ANCHORS[6 - 3 * level : 9 - 3 * level], dtype=torch.float64)
        for image in range(len(head)):
            y = torch.from_numpy(truth[image][level])
            rows, columns, _, outputs = y.shape
            raw = torch.from_numpy(head[image]).view(3, outputs, rows, columns).permute(2, 3, 0, 1)
            line, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            grid = torch.stack([column, line], -1)[:, :, None]
            shape = torch.tensor([columns, rows])
            scale = y[..., 4] * (2 - y[..., 2] * y[..., 3])
            xy = bce(raw[..., :2], y[..., :2] * shape - grid, reduction="none")
            sums["xy"] += float((scale[..., None] * xy).sum())
            hit = y[..., 4] > 0
            pixels = y[..., 2:4] * torch.tensor([width, height])
            error = torch.log(pixels / anchors)[hit] - raw[..., 2:4][hit]
            if size_loss == "absolute":
                sums["wh"] += float((scale[hit][:, None] * error.abs()).sum())
            else:
                sums["wh"] += float((0.5 * scale[hit][:, None] * error**2).sum())
            sums["cls"] += float(bce(raw[..., 5:][hit], y[..., 5:][hit], reduction="sum"))
            own = y[hit][:, :4] if not len(everyone) else torch.from_numpy(everyone[image])
            centre = (torch.sigmoid(raw[..., :2]) + grid) / shape
            span = torch.exp(raw[..., 2:4]) * anchors / torch.tensor([width, height])
            free = iou_with_any(torch.cat([centre, span], -1), own) < threshold
            cost = bce(raw[..., 4], y[..., 4], reduction="none")
            sums["obj"] += float(cost[hit | free].sum())
    return {name: value / len(heads[0]) for name, value in sums.items()}


def iou_with_any(boxes: Any, others: Any) -> Any:
    """The largest overlap of each (..., 4) centre-form box with any of (n, 4)."""
    best = torch.zeros(boxes.shape[:-1], dtype=torch.float64)
    for cx, cy, w, h in others.tolist():
        x = torch.minimum(boxes[..., 0] + boxes[..., 2] / 2, torch.tensor(cx + w / 2)) - torch.maximum(
            boxes[..., 0] - boxes[..., 2] / 2, torch.tensor(cx - w / 2)
        )
        y = torch.minimum(boxes[..., 1] + boxes[..., 3] / 2, torch.tensor(cy + h / 2)) - torch.maximum(
            boxes[..., 1] - boxes[..., 3] / 2, torch.tensor(cy - h / 2)
        )
        inter = x.clamp(min=0) * y.clamp(min=0)
        best = torch.maximum(best, inter / (boxes[..., 2] * boxes[..., 3] + w * h - inter))
    return best


@pytest.mark.parametrize("ignore", ["level", "all"])
@pytest.mark.parametrize(("smooth", "threshold", "rounded"), [(0.0, 0.7, True), (0.1, 0.3, False), (0.0, 0.1, True)])
@pytest.mark.parametrize("size_loss", ["squared", "absolute"])
def test_loss_equals_the_loop(ignore: str, smooth: float, threshold: float, rounded: bool, size_loss: str) -> None:
    width, height = 128, 96
    section = {
        "name": "yolov3", "classes": 4, "width": 0.125, "depths": (1, 1, 1, 1, 1),
        "ignore_boxes": ignore, "label_smooth": smooth, "ignore_threshold": threshold, "round_centres": rounded,
        "size_loss": size_loss,
    }  # fmt: skip
    spec: Any = load_model(section).spec
    random = np.random.default_rng(3)
    heads = [random.normal(0, 0.7, (2, 27, height // s, width // s)) for s in STRIDES]
    spec.heads = lambda images: tuple(heads)
    boxes, labels, valid = random_boxes(7, width, height)
    got = spec.loss(np.zeros((2, 3, height, width)), boxes, labels, valid)
    truth = [loop_targets(boxes[i], labels[i], valid[i], width, height, 4, smooth, rounded) for i in range(2)]
    everyone = []
    if ignore == "all":
        centre = (boxes[..., :2] + boxes[..., 2:]).astype(np.float64) / 2
        place = np.concatenate([np.floor(centre) if rounded else centre, boxes[..., 2:] - boxes[..., :2]], 2)
        everyone = [(place[i] / (width, height, width, height))[valid[i]] for i in range(2)]
    want = loop_loss(heads, truth, everyone, (width, height), threshold, size_loss)
    for name, value in want.items():
        assert float(got[name]) == pytest.approx(value, rel=1e-6), name


def test_labels_smoothed_as_ppdet_has_it() -> None:
    """4 classes: d = 1/40; 50: d = 1/50. Every class of a place that two boxes share is a positive."""
    boxes = np.array([[[10, 20, 41, 63], [10, 20, 41, 63]]], np.float32)
    for classes, small in ((4, 0.025), (50, 0.02)):
        heads = np.zeros((1, 1, 6, 6))
        place, _, best = box_targets(boxes, np.zeros((1, 3, 96, 96)), ANCHORS, False)
        labels, valid = np.array([[1, 2]], np.int32), np.ones((1, 2), bool)
        _, winner, _, targets = assign(heads, place, best, labels, valid, 3, classes, "ppdet")
        assert winner.tolist() == [[False, True]]
        want = np.full(classes, small)
        want[[1, 2]] = 1 - small
        np.testing.assert_allclose(targets[0, 1], want, rtol=1e-12)


def test_more_boxes_spare_more_background() -> None:
    """Otherwise the two settings of the test above could be one."""
    losses = {}
    for ignore in ("level", "all"):
        section = {"name": "yolov3", "classes": 4, "width": 0.125, "ignore_boxes": ignore, "ignore_threshold": 0.2}
        spec: Any = load_model(section).spec
        heads = tuple(np.zeros((2, 27, 96 // s, 128 // s)) for s in STRIDES)
        spec.heads = lambda images, heads=heads: heads
        boxes, labels, valid = random_boxes(7, 128, 96)
        losses[ignore] = float(spec.loss(np.zeros((2, 3, 96, 128)), boxes, labels, valid)["obj"])
    assert losses["all"] < losses["level"] - 1
