"""Batches of PP-YOLO's augmentation: the same bits for any workers, ranks and resume; weights, limits, keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from portdet.config import AugmentConfig, Config, load
from portdet.data.loader import EvalLoader, TrainLoader
from portdet.data.prepare import Task, TrainPreparer
from portdet.data.records import Finding
from portdet.data.scenes import read_scenes
from portdet.data.transforms import fit, normalisation
from portdet.errors import PortdetError
from portdet.session import Batch
from tests.data.test_data_loader import batch_hash, hashes

PLAIN: dict[str, Any] = {"mean": (0, 0, 0), "std": (1, 1, 1), "seed": 0, "scores": True}
SIZES = [32, 64, 96]


def configured(augment: dict[str, Any] | None = None, **data: Any) -> Config:
    shared = {"train_count": 22, "val_count": 5, "scene_size": 48, "imgsz": 64, "batch": 4, "workers": 0}
    return Config.model_validate({"data": shared | data, "augment": {"kind": "ppyolo"} | (augment or {})})


def loader(config: Config, **words: Any) -> TrainLoader:
    return TrainLoader(read_scenes(config.data, "train"), config, **PLAIN | words)


@pytest.fixture(scope="module")
def alone() -> list[list[str]]:
    """Hashes of three epochs at several sizes, prepared in this process."""
    with loader(configured(sizes=SIZES)) as batches:
        return [hashes(batches.epoch(epoch)) for epoch in range(3)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_worker_count_and_resume_change_nothing(workers: int, alone: list[list[str]]) -> None:
    assert len({h for epoch in alone for h in epoch}) == 15
    with loader(configured(sizes=SIZES, workers=workers)) as batches:
        assert hashes(batches.epoch(1, start_step=3)) == alone[1][3:]
        given_up = batches.epoch(2)
        assert batch_hash(next(given_up)) == alone[2][0]
        for epoch in range(3):
            assert hashes(batches.epoch(epoch)) == alone[epoch]


def test_seed_changes_every_batch(alone: list[list[str]]) -> None:
    with loader(configured(sizes=SIZES), seed=1) as batches:
        assert not set(hashes(batches.epoch(0))) & set(alone[0])


def by_image(batches: list[Batch], name: str) -> dict[int, NDArray[Any]]:
    return {int(i): getattr(batch, name)[n] for batch in batches for n, i in enumerate(batch.image_ids)}


def test_ranks_together_have_the_batch_of_one_process() -> None:
    """Sizes and interpolations are those of the step, whoever asks."""
    config = configured(sizes=SIZES)
    whole, *ranks = (list(loader(config, rank=r, world=w).epoch(2)) for r, w in ((0, 1), (0, 2), (1, 2)))
    for step, batch in enumerate(whole):
        parts = [rank[step] for rank in ranks]
        for name in ("images", "boxes", "scores"):
            here, there = by_image([batch], name), by_image(parts, name)
            assert set(here) == set(there)
            for image_id, value in here.items():
                np.testing.assert_array_equal(there[image_id], value)


def test_every_interpolation_has_its_batches() -> None:
    config = configured()
    table = normalisation((0, 0, 0), (1, 1, 1))
    make = TrainPreparer(read_scenes(config.data, "train"), config.augment, 50, "stretch", table, 0)
    drawn = [make._method(Task((), 64, epoch, step)) for epoch in range(20) for step in range(50)]
    counts = np.bincount(drawn)
    assert counts.shape == (5,)
    assert 150 < counts.min() <= counts.max() < 250


def test_weights_are_the_shares_of_two_images() -> None:
    config = configured({"mixup_epochs": 1, "crop_tries": 0}, workers=1)
    dataset = read_scenes(config.data, "train")
    boxes = {record.image_id: len(record.labels) for record in dataset.records}
    with loader(config) as batches:
        mixed, after = (list(batches.epoch(epoch)) for epoch in (0, 1))
    scores, valid = by_image(mixed, "scores"), by_image(mixed, "valid")
    assert len(scores) == 20
    for image_id, there in valid.items():
        own = boxes[image_id]
        share = scores[image_id][0]
        assert 0 < share < 1
        np.testing.assert_array_equal(scores[image_id][:own], share)
        np.testing.assert_allclose(scores[image_id][own : there.sum()], 1 - share, rtol=1e-6)
        assert there.sum() > own
        assert not scores[image_id][there.sum() :].any()
    for batch in after:  # alone again
        assert batch.scores is not None
        np.testing.assert_array_equal(batch.scores, batch.valid.astype(np.float32))
        assert [boxes[int(i)] for i in batch.image_ids] == batch.valid.sum(1).tolist()


def test_any_image_is_the_second_of_any() -> None:
    dataset = read_scenes(configured().data, "train")
    read: list[int] = []
    original = dataset.source.read

    def watch(record: Any) -> Any:
        read.append(record.image_id)
        return original(record)

    dataset.source.read = watch  # type: ignore[method-assign]
    pairs = []
    batches = TrainLoader(dataset, configured(), **PLAIN)
    for epoch in range(12):
        for batch in batches.epoch(epoch):
            assert read[::2] == batch.image_ids.tolist()
            pairs += list(zip(read[::2], read[1::2], strict=True))
            read.clear()
    second = np.bincount([b for _, b in pairs], minlength=23)[1:]
    assert second.min() > 0
    assert second.max() < 30  # 240 draws among 22
    assert 0 < sum(a == b for a, b in pairs) < 30  # the image itself is not left out, as in the original


def test_more_boxes_than_the_limit_when_mixed() -> None:
    """Under 'error' no mixture can pass the limit; under 'drop' the first are kept and the others counted."""
    dataset = read_scenes(configured().data, "train")
    most = max(len(record.labels) for record in dataset.records)
    with pytest.raises(PortdetError, match=rf"limit is {2 * most - 1}, and .* mixed .*\n.*data\.max_boxes={2 * most},"):
        loader(configured(max_boxes=2 * most - 1))
    free = list(loader(configured(max_boxes=2 * most)).epoch(0))
    limited = loader(configured(max_boxes=3, too_many_boxes="drop"))
    assert limited.report[Finding.MAY_BE_CUT] == sum(len(r.labels) + most > 3 for r in dataset.records)
    cut = list(limited.epoch(0))
    over = sum(int(np.maximum(batch.valid.sum(1) - 3, 0).sum()) for batch in free)
    assert limited.lost[Finding.CUT] == over > 10
    for a, b in zip(free, cut, strict=True):
        for name in ("boxes", "labels", "scores", "valid"):
            np.testing.assert_array_equal(getattr(b, name), getattr(a, name)[:, :3])
    alone = configured({"mixup_epochs": 0}, max_boxes=most)
    with loader(alone) as batches:
        list(batches.epoch(0))
        assert not batches.lost[Finding.CUT] + batches.report[Finding.MAY_BE_CUT]


def test_a_model_without_weights_refuses_mixtures() -> None:
    with pytest.raises(PortdetError, match=r"(?s)loss weighs boxes.*mixup_epochs=0"):
        loader(configured(), scores=False)
    next(loader(configured({"mixup_epochs": 0}), scores=False).epoch(0))
    next(loader(configured({"enabled": False}), scores=False).epoch(0))


def test_last_epochs_come_as_in_validation() -> None:
    config = configured({"close_last": 1}, resize="stretch_cubic")
    config.train.epochs = 2
    dataset = read_scenes(config.data, "train")
    batch = next(loader(config).epoch(1))
    record = dataset.records[int(batch.image_ids[0]) - 1]
    want = fit(dataset.read(record), 64, "stretch_cubic").transpose(2, 0, 1) / 255.0
    np.testing.assert_array_equal(batch.images[0], want.astype(np.float32))
    assert batch.scores is not None
    assert set(batch.scores[batch.valid].tolist()) == {1.0}
    validation = EvalLoader(read_scenes(config.data, "val"), config, mean=(0, 0, 0), std=(1, 1, 1))
    first = read_scenes(config.data, "val")
    want = fit(first.read(first.records[0]), 64, "stretch_cubic").transpose(2, 0, 1) / 255.0
    np.testing.assert_array_equal(next(iter(validation)).images[0], want.astype(np.float32))


def test_every_step_can_be_left_out() -> None:
    off = {"mixup_epochs": 0, "distort": 0.0, "expand": 0.0, "crop_tries": 0, "flip": 0.0}
    batch = next(loader(configured(off | {"random_interpolation": False}, imgsz=48)).epoch(0))
    dataset = read_scenes(configured().data, "train")
    for image, number in zip(batch.images, batch.image_ids, strict=True):
        want = dataset.read(dataset.records[int(number) - 1]).transpose(2, 0, 1) / 255.0
        np.testing.assert_array_equal(image, want.astype(np.float32))


def test_keys_of_the_other_kind_are_errors(tmp_path: Path) -> None:
    """In a file, as a word of the command line, and by assignment."""
    path = tmp_path / "run.yaml"
    path.write_text("model: {name: ppyolo}\naugment: {kind: ppyolo, scale: [0.7, 1.4]}\n")
    with pytest.raises(PortdetError, match=r"'scale' is a key of augment\.kind=yolov3, and the kind is ppyolo"):
        load(str(path))
    path.write_text("model: {name: ppyolo}\n")
    with pytest.raises(PortdetError, match=r"'expand' is a key of augment\.kind=ppyolo, and the kind is yolov3"):
        load(str(path), ["augment.expand=0.3"])
    config = load(str(path), ["augment.kind=ppyolo", "augment.expand=0.3"])
    with pytest.raises(ValueError, match="'jitter' is a key"):
        config.augment.jitter = 0.2
    assert AugmentConfig(kind="ppyolo", flip=0.1).flip == 0.1


@pytest.mark.parametrize("kind", ["yolov3", "ppyolo"])
def test_the_dumped_file_has_the_keys_of_its_kind(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "args.yaml"
    config = configured({"kind": kind, "flip": 0.25})
    path.write_text(config.dump())
    assert ("jitter" in path.read_text()) == (kind == "yolov3")
    assert ("mixup_epochs" in path.read_text()) == (kind == "ppyolo")
    assert load(str(path)).augment.model_dump() == config.augment.model_dump()
