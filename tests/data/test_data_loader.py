"""Batches: the same bits for any worker count and point of resume; errors and ends of worker processes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from portdet.config import Config
from portdet.data.loader import EvalLoader, TrainLoader
from portdet.data.order import batch_size, epoch_order
from portdet.data.random import generator
from portdet.data.records import Dataset, Finding, Record, Report
from portdet.data.scenes import read_scenes
from portdet.data.transforms import stretch
from portdet.errors import PortdetError
from portdet.session import Batch
from tests.counts import Calls
from tests.patience import GUARD, running, until

PLAIN: dict[str, Any] = {"mean": (0, 0, 0), "std": (1, 1, 1), "seed": 0}
ROOT = Path(__file__).parents[2]


def configured(**data: Any) -> Config:
    values = {
        "train_count": 22,
        "val_count": 9,
        "scene_size": 48,
        "imgsz": 64,
        "batch": 4,
        "val_batch": 4,
        "workers": 0,
    }
    return Config.model_validate({"data": values | data})


def batch_hash(batch: Batch) -> str:
    """All bytes of all arrays."""
    digest = hashlib.sha256()
    for name, value in vars(batch).items():
        digest.update(f"{name} {np.asarray(value).dtype} {np.shape(value)}".encode() + np.asarray(value).tobytes())
    return digest.hexdigest()


def hashes(batches: Iterator[Batch]) -> list[str]:
    """Taken when all batches are there: a batch must stay as it is while the next ones are prepared."""
    return [batch_hash(batch) for batch in list(batches)]


@pytest.fixture(scope="module")
def alone() -> list[list[str]]:
    """Hashes of three epochs at several sizes, prepared in this process."""
    config = configured(sizes=[32, 64, 96])
    with TrainLoader(read_scenes(config.data, "train"), config, **PLAIN) as loader:
        return [hashes(loader.epoch(epoch)) for epoch in range(3)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_worker_count_and_resume_change_nothing(workers: int, alone: list[list[str]]) -> None:
    assert len({h for epoch in alone for h in epoch}) == 15
    config = configured(sizes=[32, 64, 96], workers=workers)
    with TrainLoader(read_scenes(config.data, "train"), config, **PLAIN) as loader:
        assert loader.steps_per_epoch == 5
        assert hashes(loader.epoch(1, start_step=3)) == alone[1][3:]
        given_up = loader.epoch(2)
        assert batch_hash(next(given_up)) == alone[2][0]
        for epoch in range(3):
            assert hashes(loader.epoch(epoch)) == alone[epoch]
        assert hashes(loader.epoch(0, start_step=5)) == []


def noise_shape(side: int) -> tuple[int, ...]:
    return 3, side // 32, side // 32


def test_noise_follows_from_seed_epoch_and_image() -> None:
    """The same for any workers, ranks and point of resume; another in each epoch."""
    config = configured(sizes=[32, 64, 96])
    dataset = read_scenes(config.data, "train")
    drawn: dict[int, Any] = {}
    for workers, world, start in ((0, 1, 0), (1, 1, 3), (0, 2, 0)):
        config.data.workers = workers
        for rank in range(world):
            with TrainLoader(
                dataset, config, **PLAIN, rank=rank, world=world, scores=True, noise=noise_shape
            ) as loader:
                for batch in loader.epoch(1, start):
                    assert batch.scores is not None
                    assert batch.noise is not None
                    np.testing.assert_array_equal(batch.scores, batch.valid.astype(np.float32))
                    assert batch.noise.shape == (len(batch.images), *noise_shape(batch.images.shape[2]))
                    for number, noise in zip(batch.image_ids.tolist(), batch.noise, strict=True):
                        np.testing.assert_array_equal(drawn.setdefault(number, noise), noise)
    assert len(drawn) == 20
    every = np.concatenate([noise.ravel() for noise in drawn.values()])
    assert len(set(every.tolist())) == len(every)
    assert 0 <= every.min() < every.max() < 1
    with TrainLoader(dataset, config, **PLAIN, noise=noise_shape) as loader:
        later = next(loader.epoch(2))
        assert later.scores is None
        assert later.noise is not None
        assert not np.isin(later.noise, every).all()


def test_seed_changes_order_and_augmentation(alone: list[list[str]]) -> None:
    config = configured(sizes=[32, 64, 96])
    with TrainLoader(read_scenes(config.data, "train"), config, **PLAIN | {"seed": 1}) as loader:
        assert not set(hashes(loader.epoch(0))) & set(alone[0])


def test_an_image_is_augmented_anew_in_each_epoch() -> None:
    config = configured(train_count=4)
    config.augment.random_interpolation = False
    loader = TrainLoader(read_scenes(config.data, "train"), config, **PLAIN)
    batches = [next(loader.epoch(epoch)) for epoch in range(2)]
    for image_id in range(1, 5):
        first, second = (batch.images[batch.image_ids == image_id] for batch in batches)
        assert (first != second).any()


def test_batches_hold_what_the_order_and_sizes_say() -> None:
    config = configured(sizes=[32, 64, 96])
    dataset = read_scenes(config.data, "train")
    loader = TrainLoader(dataset, config, **PLAIN)
    order = epoch_order(22, 1)
    for step, batch in enumerate(loader.epoch(1)):
        side = batch_size([32, 64, 96], 1, step, count=22)
        assert batch.images.shape == (4, 3, side, side)
        assert [b.dtype for b in (batch.images, batch.boxes, batch.labels)] == [np.float32, np.float32, np.int32]
        assert batch.image_ids.tolist() == [dataset.records[i].image_id for i in order[step * 4 : step * 4 + 4]]
        assert (batch.boxes[~batch.valid] == 0).all()
        sides = (batch.boxes[..., 2:] - batch.boxes[..., :2])[batch.valid]
        assert (sides > 1).all()
        assert batch.boxes.max() <= side
    assert loader.report[Finding.LEFT_OVER] == 2


def test_ranks_see_what_one_process_sees() -> None:
    config = configured()
    dataset = read_scenes(config.data, "train")
    whole, *ranks = (
        list(TrainLoader(dataset, config, **PLAIN, rank=rank, world=world).epoch(2))
        for rank, world in ((0, 1), (0, 2), (1, 2))
    )
    for step, batch in enumerate(whole):
        parts = [rank[step] for rank in ranks]
        ids = np.concatenate([part.image_ids for part in parts])
        images = np.concatenate([part.images for part in parts])
        place = {int(i): n for n, i in enumerate(ids)}
        np.testing.assert_array_equal(images[[place[int(i)] for i in batch.image_ids]], batch.images)
    with pytest.raises(PortdetError, match="does not divide among 3"):
        TrainLoader(dataset, config, **PLAIN, world=3)


@pytest.mark.parametrize("close_last", [0, 2])
def test_unaugmented_batches_are_plain_resizes(close_last: int) -> None:
    config = configured()
    config.train.epochs = 3
    config.augment.close_last = close_last
    config.augment.enabled = bool(close_last)
    dataset = read_scenes(config.data, "train")
    loader = TrainLoader(dataset, config, **PLAIN)
    batch = next(loader.epoch(1))
    for i, image_id in enumerate(batch.image_ids):
        record = dataset.records[image_id - 1]
        want = stretch(dataset.read(record), 64).transpose(2, 0, 1) / 255.0
        np.testing.assert_array_equal(batch.images[i], want.astype(np.float32))
        np.testing.assert_allclose(batch.boxes[i][batch.valid[i]], record.boxes * (64 / 48), rtol=1e-6)
        np.testing.assert_array_equal(batch.labels[i][batch.valid[i]], record.labels)
    if close_last:
        first = next(loader.epoch(0))
        record = dataset.records[int(first.image_ids[0]) - 1]
        assert (first.images[0] != stretch(dataset.read(record), 64).transpose(2, 0, 1) / np.float32(255)).any()


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_loses_no_image(workers: int) -> None:
    config = configured(workers=workers)
    dataset = read_scenes(config.data, "val")
    with EvalLoader(dataset, config, mean=(0, 0, 0), std=(1, 1, 1)) as loader:
        for _ in range(2):
            batches = list(loader)
            assert len(batches) == len(loader) == 3
            assert [b.count for b in batches] == [4, 4, 1]
            ids = [int(i) for b in batches for i in b.image_ids[: b.count]]
            assert ids == [r.image_id for r in dataset.records]
            assert all(b.images.shape == (4, 3, 64, 64) for b in batches)
            assert batches[2].image_ids.tolist() == [9] * 4
            np.testing.assert_array_equal(batches[2].images[3], batches[2].images[0])
            assert batches[0].sizes.tolist() == [[48, 48]] * 4


def test_more_boxes_than_the_limit() -> None:
    config = configured(max_boxes=2)
    dataset = read_scenes(config.data, "train")
    over = [r for r in dataset.records if len(r.labels) > 2]
    most = max(len(r.labels) for r in over)
    with pytest.raises(PortdetError, match=rf"{over[0].name}: \d boxes, the limit is 2.*\n.*data\.max_boxes={most}"):
        TrainLoader(dataset, config, **PLAIN)
    config.data.too_many_boxes = "drop"
    for enabled in (True, False):
        config.augment.enabled = enabled
        loader = TrainLoader(dataset, config, **PLAIN)
        assert loader.report[Finding.OVER_LIMIT] == sum(len(r.labels) - 2 for r in over)
        assert all(batch.boxes.shape == (4, 2, 4) for batch in loader.epoch(0))


def test_too_few_images_for_a_batch() -> None:
    config = configured(train_count=3)
    with pytest.raises(PortdetError, match="3 training images do not fill one batch of 4"):
        TrainLoader(read_scenes(config.data, "train"), config, **PLAIN)


def test_images_that_lose_all_boxes_are_counted() -> None:
    config = configured(train_count=4)
    config.augment.enabled = False
    dataset = read_scenes(config.data, "train")
    speck = np.array([[3.0, 3.0, 0.7, 0.7]])  # 0.93 px at 64
    first = dataset.records[0]
    dataset.records[0] = Record(
        first.image_id,
        first.name,
        48,
        48,
        speck,
        np.zeros(1, np.int32),
        np.zeros(1, bool),
        np.ones(1),
        np.ones(1, np.int64),
    )
    loader = TrainLoader(dataset, config, **PLAIN)
    (batch,) = loader.epoch(0)
    assert (~batch.valid.any(1)).sum() == 1
    assert loader.lost.places[Finding.ALL_LOST] == ["scene 0"]


@pytest.fixture
def broken(tmp_path: Path) -> tuple[Dataset, Config]:
    """Five JPEG files in COCO's format, the one named 3.jpg cut short."""
    import json

    from PIL import Image as Pillow

    from portdet.data.coco import read_coco

    for i in range(5):
        Pillow.fromarray(generator(0, 0, i).integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / f"{i}.jpg")
    (tmp_path / "3.jpg").write_bytes((tmp_path / "3.jpg").read_bytes()[:900])
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 32, "height": 32} for i in range(5)],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [2, 2, 20, 20]} for i in range(5)],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    return read_coco(tmp_path / "a.json", tmp_path, train=True), configured(batch=1)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_image_reaches_the_caller_by_name(workers: int, broken: tuple[Dataset, Config]) -> None:
    dataset, config = broken
    config.data.workers = workers
    with TrainLoader(dataset, config, **PLAIN) as loader:
        with pytest.raises(PortdetError, match=r"3\.jpg: unreadable image: .*truncated.*\n.*bad_image=skip") as caught:
            list(loader.epoch(0))
        assert caught.value.fix
        before = epoch_order(5, 0).tolist().index(3)
        assert len([next(batches) for batches in [loader.epoch(0)] for _ in range(before)]) == before  # goes on


def test_killed_worker_is_noticed() -> None:
    config = configured(workers=1)
    with TrainLoader(read_scenes(config.data, "train"), config, **PLAIN) as loader:
        batches = loader.epoch(0)
        next(batches)
        os.kill(loader._workers._workers[0].process.pid or 0, signal.SIGKILL)
        with pytest.raises(PortdetError, match="exit code -9"):
            list(batches)
        assert len(list(loader.epoch(0))) == 5


def test_two_passes_at_once_are_refused() -> None:
    config = configured(workers=1)
    with TrainLoader(read_scenes(config.data, "train"), config, **PLAIN) as loader:
        first = loader.epoch(0)
        next(first)
        next(loader.epoch(1))
        with pytest.raises(PortdetError, match="another one began"):
            list(first)


SCRIPT = """
    import sys, time
    from portdet.config import Config
    from portdet.data.loader import TrainLoader
    from portdet.data.scenes import SceneSource, read_scenes

    class Watching(SceneSource):
        def read(self, record):
            heavy = {"torch", "mindspore", "paddle", "matplotlib", "pycocotools"} & set(sys.modules)
            assert not heavy, heavy
            return super().read(record)

    if __name__ == "__main__":
        data = {"train_count": 8, "scene_size": 48, "imgsz": 64, "batch": 4, "workers": 2}
        config = Config.model_validate({"data": data})
        dataset = read_scenes(config.data, "train")
        dataset.source = Watching(0, "train", 48)
        loader = TrainLoader(dataset, config, mean=(0, 0, 0), std=(1, 1, 1), seed=0)
        for epoch in range(2):
            print(len(list(loader.epoch(epoch))), flush=True)
        print(*(worker.process.pid for worker in loader._workers._workers), flush=True)
        END
"""


def run_script(folder: Path, end: str) -> subprocess.Popen[str]:
    path = folder / "script.py"
    path.write_text(textwrap.dedent(SCRIPT).replace("END", end))
    return subprocess.Popen(
        [sys.executable, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("end", "how", "code"),
    [
        ("", None, 0),
        ("next(loader.epoch(3))", None, 0),
        ("time.sleep(10_000)", signal.SIGKILL, -signal.SIGKILL),
        ("time.sleep(10_000)", signal.SIGINT, -signal.SIGINT),
    ],
)
def test_workers_are_light_and_end_with_their_parent(end: str, how: int | None, code: int, tmp_path: Path) -> None:
    process = run_script(tmp_path, end)
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(3)]
    if how:
        (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)
    _, errors = process.communicate(timeout=GUARD)
    assert process.returncode == code, errors
    assert lines[:2] == ["2\n", "2\n"]
    assert len(lines[2].split()) == 2
    assert "Warning" not in errors
    if not how:
        assert errors == ""
    until(lambda: not any(running(int(pid)) for pid in lines[2].split()), "the end of the workers")


def test_main_process_does_little_for_a_batch() -> None:
    """130 calls, where making a batch takes 2,700; 1.6 MB of images come by shared memory, 11 kB by a pipe."""
    config = configured(workers=1, train_count=64, scene_size=128, imgsz=128, batch=8)
    with TrainLoader(read_scenes(config.data, "train"), config, **PLAIN) as loader:
        list(loader.epoch(0))
        before = psutil.Process().io_counters().read_chars
        with Calls() as calls:
            batches = list(loader.epoch(1))
        read = psutil.Process().io_counters().read_chars - before
    assert calls.number < 500 * len(batches)
    assert read < sum(batch.images.nbytes for batch in batches) / 20


def test_report_lines_are_readable() -> None:
    report = Report()
    for i in range(7):
        report.count(Finding.NO_AREA, f"{i}.jpg", i)
    assert report.lines() == ["21 boxes without area were dropped (1.jpg, 2.jpg, 3.jpg, 4.jpg, 5.jpg, ...)"]


def test_reports_of_several_ranks_add_up() -> None:
    first, second = Report(), Report()
    first.count(Finding.CUT, "a", 2)
    for name in "abcdef":
        second.count(Finding.CUT, name, 1)
    second.count(Finding.ALL_LOST, "g")
    first.add(second)
    assert first.lines() == [f"8 {Finding.CUT} (a, b, c, d, e, ...)", f"1 {Finding.ALL_LOST} (g)"]
    assert second.places[Finding.ALL_LOST] == ["g"]
    first.clear()
    assert first.lines() == []
