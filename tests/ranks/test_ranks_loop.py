"""Ranks without a framework: threads that meet in `gather` run the loop, the evaluation and what a launcher reports."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.backends import load_backend
from portdet.cli.launch import _raise_report, find_place
from portdet.config import Config, DataConfig
from portdet.data import open_dataset
from portdet.data.records import Dataset
from portdet.errors import PortdetError
from portdet.evaluate.validate import Validator
from portdet.postprocess.detections import Detections
from portdet.ranks import Place, RankError, is_shared, shared, together
from portdet.session import Array, Batch, StepResult, StepValues
from portdet.train import checkpoint
from portdet.train.interrupt import Interrupted
from portdet.train.loop import Trainer
from tests.patience import GUARD
from tests.train.fakes import FakeLoader, FakeSession, files, rows, score, settings, train


class Meeting:
    """`gather` of `world` threads; a thread that fails alone breaks it, as a launcher does."""

    def __init__(self, world: int) -> None:
        self.world, self.barrier = world, threading.Barrier(world, timeout=GUARD)
        self.left: list[bytes] = [b""] * world

    def gather(self, rank: int, value: Any) -> list[Any]:
        self.left[rank] = pickle.dumps(value)
        self.barrier.wait()
        found = [pickle.loads(one) for one in self.left]
        self.barrier.wait()
        return found


def on_ranks(world: int, work: Callable[[Place, Meeting], Any]) -> list[Any]:
    """What `work` returns or raises on each rank."""
    meeting, found = Meeting(world), [None] * world

    def one(rank: int) -> None:
        try:
            found[rank] = work(Place(rank, world, rank), meeting)
        except Exception as error:
            found[rank] = error  # type: ignore[call-overload]
            if not is_shared(error):
                meeting.barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(world)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


class RankSession(FakeSession):
    """The fake of one rank; `asked_at`: the step in which this rank gets a signal."""

    trainer: Trainer

    def __init__(self, place: Place, meeting: Meeting, asked_at: int = -1, **faults: Any) -> None:
        super().__init__(**faults)
        self.place, self.meeting, self.asked_at = place, meeting, asked_at

    def gather(self, value: Any) -> list[Any]:
        return self.meeting.gather(self.place.rank, value)

    def train_step(self, batch: Batch, values: StepValues) -> StepResult:
        if len(self.values_seen) == self.asked_at:
            self.trainer.stop.signal_name = "SIGTERM"  # threads cannot have handlers
        return super().train_step(batch, values)


class RankLoader(FakeLoader):
    """Its second image is another one on each rank; the images of the model's batch are the same."""

    def __init__(self, place: Place, broken_at: tuple[int, int] | None = None) -> None:
        super().__init__(broken_at=broken_at)
        self.place = place

    def epoch(self, epoch: int, start_step: int = 0) -> Any:
        for one in super().epoch(epoch, start_step):
            yield replace(one, image_ids=one.image_ids + 1000 * self.place.rank)


def trained(folder: Path, *, world: int = 2, resume: bool = False, guilty: int = 1, config: Config | None = None,
            broken_at: tuple[int, int] | None = None, **faults: Any) -> list[Any]:  # fmt: skip
    """A run of `world` ranks; rank `guilty` has the faults."""

    def one(place: Place, meeting: Meeting) -> Any:
        mine = place.rank == guilty
        session = RankSession(place, meeting, **(faults if mine else {}))
        loader = RankLoader(place, broken_at if mine else None)
        session.trainer = Trainer(config or settings(), session, loader, folder, validate=score, place=place)
        if resume:
            session.trainer.resume()
        return session.trainer.run()

    return on_ranks(world, one)


def without_hash(folder: Path) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "batch"} for row in rows(folder / "steps.csv")]


# ---- the loop


def test_ranks_end_as_one_process_and_write_once(tmp_path: Path) -> None:
    alone = train(tmp_path / "alone")[0].run()
    assert trained(tmp_path / "ranks", world=3) == [alone] * 3
    assert files(tmp_path / "ranks")["results"] == files(tmp_path / "alone")["results"]
    assert without_hash(tmp_path / "ranks") == without_hash(tmp_path / "alone")
    assert len({row["batch"] for row in rows(tmp_path / "ranks" / "steps.csv")}) == 15
    one, two = (checkpoint.load_state(tmp_path / f / "weights" / "last.safetensors")[0] for f in ("alone", "ranks"))
    assert {k: v.tobytes() for k, v in one.items()} == {k: v.tobytes() for k, v in two.items()}


@pytest.mark.parametrize("asked_at", [0, 3, 4, 9])
@pytest.mark.parametrize("guilty", [0, 1])
def test_a_signal_to_one_rank_stops_all_after_the_same_step(tmp_path: Path, asked_at: int, guilty: int) -> None:
    trained(tmp_path / "whole")
    stopped = trained(tmp_path / "halves", guilty=guilty, asked_at=asked_at)
    assert [type(error) for error in stopped] == [Interrupted] * 2
    assert all(f"stopped by SIGTERM after {asked_at + 1} steps" in str(error) for error in stopped)
    assert all(map(is_shared, stopped))
    assert checkpoint.load_state(tmp_path / "halves" / "weights" / "last.safetensors")[1].step == asked_at + 1
    assert [end.reason for end in trained(tmp_path / "halves", resume=True)] == ["finished"] * 2
    assert files(tmp_path / "halves") == files(tmp_path / "whole")


def test_an_image_that_one_rank_cannot_read_loses_no_step(tmp_path: Path) -> None:
    trained(tmp_path / "whole")
    other, own = trained(tmp_path / "halves", broken_at=(1, 3))
    assert isinstance(other, RankError)
    assert str(other) == "rank 1: cannot read image 7"
    assert not isinstance(own, RankError)
    assert is_shared(own)
    assert checkpoint.load_state(tmp_path / "halves" / "weights" / "last.safetensors")[1].step == 8
    trained(tmp_path / "halves", resume=True)
    assert files(tmp_path / "halves") == files(tmp_path / "whole")


def test_a_loss_that_is_not_finite_ends_all_and_names_the_images_of_all(tmp_path: Path) -> None:
    def one(place: Place, meeting: Meeting) -> Any:
        session = RankSession(place, meeting, nan_at=7)  # the session's losses are means over the ranks
        return Trainer(settings(), session, RankLoader(place), tmp_path, validate=score, place=place).run()

    for error in on_ranks(2, one):
        assert is_shared(error)
        assert "images 2, 102, 1002, 1102" in str(error)


def test_a_full_disk_of_rank_0_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise PortdetError("no space left")

    monkeypatch.setattr(checkpoint, "save_state", full)
    own, other = trained(tmp_path)
    assert (str(own), str(other)) == ("no space left", "rank 0: no space left")


def test_what_one_rank_alone_raises_is_not_waited_for(tmp_path: Path) -> None:
    class Broken(RankSession):
        def train_step(self, batch: Batch, values: StepValues) -> StepResult:
            if self.place.rank == 1 and len(self.values_seen) == 2:
                raise MemoryError
            return super().train_step(batch, values)

    def one(place: Place, meeting: Meeting) -> Any:
        return Trainer(settings(), Broken(place, meeting), RankLoader(place), tmp_path, validate=score,
                       place=place).run()  # fmt: skip

    left, failed = on_ranks(2, one)
    assert isinstance(failed, MemoryError)
    assert not is_shared(failed)
    assert isinstance(left, threading.BrokenBarrierError)


def test_together_gives_results_in_rank_order_or_the_first_error() -> None:
    assert (
        on_ranks(3, lambda place, m: together(lambda v: m.gather(place.rank, v), lambda: place.rank**2))
        == [[0, 1, 4]] * 3
    )

    def work(place: Place) -> int:
        if place.rank:
            raise ValueError(place.rank)
        return 0

    found = on_ranks(3, lambda place, m: together(lambda v: m.gather(place.rank, v), lambda: work(place)))
    assert [type(error) for error in found] == [RankError, ValueError, ValueError]
    assert str(found[0]) == "rank 1: 1"
    assert is_shared(shared(KeyError("a")))
    assert not is_shared(KeyError("a"))


# ---- evaluation


class Echo(FakeSession):
    """Its predictions are the images' own means."""

    def __init__(self, place: Place, meeting: Meeting) -> None:
        super().__init__()
        self.place, self.meeting, self.seen = place, meeting, 0

    def gather(self, value: Any) -> list[Any]:
        return self.meeting.gather(self.place.rank, value)

    def predict(self, images: Array) -> Array:
        self.seen += len(images)
        means: Array = images.mean((1, 2, 3))
        return means


class Boxes:
    """A detector whose boxes follow from the image alone: some of the truth, some not."""

    class fields:
        mean, std = (0.5,) * 3, (0.2,) * 3

    def detections(self, rows: Array, sizes: Array, config: Config) -> list[Detections]:
        found = []
        for value, (w, h) in zip(rows, sizes, strict=True):
            random = np.random.default_rng(abs(int(value * 1e6)))
            corners = np.sort(random.uniform(0, 1, (6, 2, 2)), axis=1) * (w, h)
            boxes, marks = corners.reshape(6, 4).astype(np.float32), random.uniform(0, 1, 6).astype(np.float32)
            found.append(Detections(boxes, marks, random.integers(0, 3, 6)))
        return found


def shapes(count: int) -> tuple[Config, Dataset]:
    data = DataConfig(val_count=count, scene_size=48, imgsz=32, val_batch=2, workers=0)
    return Config(data=data), open_dataset(data, "val")


@pytest.mark.parametrize(("count", "world"), [(7, 2), (7, 3), (2, 3)])
def test_no_image_is_lost_or_counted_twice(count: int, world: int) -> None:
    config, dataset = shapes(count)
    detector: Any = Boxes()
    alone = Validator(config, detector, dataset)
    want = alone(FakeAlone())

    def one(place: Place, meeting: Meeting) -> Any:
        session = Echo(place, meeting)
        validator = Validator(config, detector, dataset, place)
        return validator(session), validator, session.seen

    for place, (numbers, validator, seen) in enumerate(on_ranks(world, one)):
        assert numbers == want
        assert validator.results() == alone.results()  # the order too, which decides between equal scores
        assert (validator.scores is None) == (place > 0)
        assert seen == 2 * -(-len(dataset.records[place::world]) // 2)
    assert len({json.dumps(one) for one in alone.results()}) == 6 * count


class FakeAlone(Echo):
    def __init__(self) -> None:
        super().__init__(Place(), Meeting(1))


def test_an_image_of_two_ranks_is_an_error() -> None:
    config, dataset = shapes(5)
    detector: Any = Boxes()

    def one(place: Place, meeting: Meeting) -> Any:
        wrong = replace(place, rank=0)  # both take the first share
        return Validator(config, detector, dataset, wrong)(Echo(place, meeting))

    for error in on_ranks(2, one):
        assert str(error) == "the ranks' shares [3, 3] are not the 5 images of the data set"


# ---- places and reports


def test_a_launcher_of_another_framework_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert find_place("torch").world == 1
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert find_place("torch") == Place(3, 4, 1)
    with pytest.raises(PortdetError, match=r"started by torchrun, and backend paddle .*(.|\n)*paddle\.distributed"):
        find_place("paddle")


def report(folder: Path, rank: int, kind: str, what: str, time: float = 0.0) -> None:
    about = {"rank": rank, "kind": kind, "what": what, "time": time, "fix": "do", "where": "there"}
    (folder / f"rank{rank}.json").write_text(json.dumps(about))


def test_the_rank_that_failed_by_itself_is_reported(tmp_path: Path) -> None:
    launcher = load_backend("torch").launcher
    _raise_report(launcher, 2, tmp_path, 0)
    (tmp_path / "launcher.log").write_text("one\ntwo\n")
    with pytest.raises(PortdetError, match=r"ranks without a word: 0, 1; torchrun ended with code 7(.|\n)*two"):
        _raise_report(launcher, 2, tmp_path, 7)
    report(tmp_path, 0, "RankError", "rank 1: cannot read", 1.0)
    report(tmp_path, 1, "PortdetError", "cannot read", 2.0)
    with pytest.raises(PortdetError, match=r"^there: rank 1: cannot read\n  -> do$"):
        _raise_report(launcher, 2, tmp_path, 1)
    report(tmp_path, 0, "PortdetError", "cannot read", 1.0)
    with pytest.raises(PortdetError, match=r"^there: cannot read\n"):  # all say it
        _raise_report(launcher, 2, tmp_path, 1)
    report(tmp_path, 1, "Interrupted", "stopped after 3 steps")
    with pytest.raises(Interrupted, match="stopped after 3 steps"):
        _raise_report(launcher, 2, tmp_path, 0)
