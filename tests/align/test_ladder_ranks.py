"""The level `ranks` on a configuration's own detector, recipe and data: healthy, and with an exchange left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.align.ladder import ranks
from portdet.align.ladder.case import case_of
from portdet.align.ladder.outcome import Outcome
from portdet.align.ladder.plan import Plan
from portdet.config import Config, load
from portdet.conformance import ranks as checklist
from portdet.errors import PortdetError
from portdet.session import Batch
from tests.backends.harness import require
from tests.conformance.vendor_case import install, plant

TINY = ("imgsz=64", "train_count=40", "val_count=4", "batch=4", "model.width=0.0625", "workers=0", "threads=1")


def looked_at(folder: Path, backend: str, *words: str) -> Outcome:
    values = load("yolov3_scenes", (*TINY, *words)).model_dump(mode="json")
    return ranks.outcome(Plan(values, str(folder), (backend,), ("ranks",)), backend, print)


def test_what_is_of_each_process_by_design_is_taken_out_and_said() -> None:
    config, facts = ranks.comparable(load("ppyolo_scenes", ("imgsz=96", "train_count=8", "train.sync_bn=false")))
    assert not case_of(config).detector.noise
    assert config.train.sync_bn
    assert set(facts) == {"model.drop_block", "train.sync_bn"}
    assert "PaddleDetection too" in facts["model.drop_block"]
    config, facts = ranks.comparable(load("yolov3_scenes", (*TINY, "model.norm_variance=unbiased")))
    assert config.model["norm_variance"] == "biased"
    assert set(facts) == {"model.norm_variance"}
    assert ranks.comparable(load("yolov3_scenes", TINY))[1] == {}


@pytest.mark.parametrize("config", ["yolov3_scenes", "ppyolo_scenes"])
def test_the_loaders_of_all_ranks_deal_out_one_batch(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of(load(config, ("imgsz=96", "train_count=16", "batch=4")))
    assert ranks._shares(case).status == "same"
    halves: Callable[..., Batch] = checklist.share
    monkeypatch.setattr(checklist, "share", lambda batch, place: halves(batch, replace(place, rank=1 - place.rank)))
    row = ranks._shares(case)
    assert row.status == "broken"
    assert "images" in row.words


def test_perturbed_runs_have_the_same_images_in_another_order() -> None:
    batch = case_of(load("yolov3_scenes", TINY)).batch(0)
    other = ranks._shuffled(batch, 3)
    assert other.image_ids.tolist() != batch.image_ids.tolist()
    back = np.argsort(other.image_ids)[np.argsort(np.argsort(batch.image_ids))]
    for name, array in vars(batch).items():
        if array is not None:
            assert np.array_equal(getattr(other, name)[back], array), name


def test_an_odd_batch_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PortdetError, match=r"data.batch=3 does not divide among 2 processes"):
        looked_at(tmp_path, "torch", "batch=3")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "mindspore", "paddle"])
def test_two_processes_are_one(backend: str, tmp_path: Path) -> None:
    require(backend)
    found = looked_at(tmp_path, backend)
    assert [(row.name, row.words) for row in found.rows if row.guilty] == []
    assert found.passed
    assert found.checked > 600
    assert found.ratio < 10
    assert [row.name for row in found.rows[:1] + found.rows[-3:]] == [
        "ranks/batch", "ranks/the same state on all ranks", "ranks/gather", "ranks/refuses different weights",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_loss_outside_of_forward_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("torch")
    install(tmp_path, monkeypatch)
    plant("loss outside forward", monkeypatch)
    found = looked_at(tmp_path / "run", "broken")
    assert found.passed is False
    assert found.first.startswith("ranks/gradient/")
    guilty = {row.name for row in found.rows if row.guilty}
    assert "ranks/the same state on all ranks" in guilty
    assert not any(name.startswith("ranks/loss/") for name in guilty)
    assert "ranks/batch" not in guilty


def test_the_request_of_a_rank_is_a_configuration(tmp_path: Path) -> None:
    values: dict[str, Any] = load("yolov3_scenes", TINY).model_dump(mode="json")
    assert Config.model_validate(values) == load("yolov3_scenes", TINY)
