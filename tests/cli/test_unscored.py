"""A validation set without boxes, from start to end: nothing is called a score. And a run of one step has one."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from portdet.cli.__main__ import run

SMALL = ["yolov3_scenes", "batch=2", "imgsz=64", "workers=0", "threads=1", "max_steps=1", "log_every=1"]
SCENES = [*SMALL, "train_count=4", "val_count=2", "scene_size=64"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn scenes, their validation set also without boxes, and with crowds alone."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    assert run(["data", "scenes", "-o", str(folder), "--count", "4", "--val-count", "2", "--size", "64"]) == 0
    truth = json.loads((folder / "val.json").read_text())
    crowds = [{**annotation, "iscrowd": 1} for annotation in truth["annotations"]]
    for name, boxes in (("none", []), ("crowds", crowds)):
        (folder / f"{name}.json").write_text(json.dumps({**truth, "annotations": boxes}))
    return folder


def on(scenes: Path, val: str) -> list[str]:
    return ["data.format=coco", f"data.root={scenes}", "data.train=train.json", "data.train_images=train",
            f"data.val={val}.json", "data.val_images=val"]  # fmt: skip


@pytest.mark.parametrize("val", ["none", "crowds"])
def test_training_says_so_before_it_starts(
    val: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", *SMALL, *on(scenes, val), f"project={tmp_path}"]) == 0
    said = capsys.readouterr().out
    why = "val: none of the 2 validation images has a box to be scored against: AP is undefined"
    assert -1 < said.index(why) < said.index("step 1/2")
    assert "data.val" in said
    assert "best" not in said.replace("no epoch will be the best", "")
    assert "-1.0" not in said
    folder = tmp_path / "train" / "yolov3_scenes"
    (row,) = csv.DictReader((folder / "results.csv").open())
    assert {row[name] for name in ("AP", "AP50", "APl", "AR100")} == {""}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["AP"] is None
    assert {one["AP50"] for one in metrics["classes"]} == {None}
    assert (folder / "results.png").is_file()
    assert not (folder / "weights" / "best.safetensors").exists()
    assert run(["val", str(folder)]) == 1
    said = capsys.readouterr().err
    assert "has no best weights: no epoch of it was scored" in said
    weights = folder / "weights" / "last.safetensors"
    assert f"--weights {weights}" in said
    assert run(["predict", str(folder), str(scenes / "val"), "--weights", str(weights), f"project={tmp_path}"]) == 0


def test_val_refuses_it_or_keeps_the_detections(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", *SMALL, *on(scenes, "val"), f"project={tmp_path}"]) == 0
    folder = tmp_path / "train" / "yolov3_scenes"
    assert "AP -1" not in capsys.readouterr().out
    words = ["val", str(folder), *on(scenes, "none")]
    assert run(words) == 1
    said = capsys.readouterr()
    assert "AP is undefined" in said.err
    assert "--save-json" in said.err
    assert not (tmp_path / "val").exists()
    assert run([*words, "--save-json"]) == 0
    said = capsys.readouterr()
    assert "AP is undefined; the detections are kept" in said.out
    assert "-1.0" not in said.out
    assert isinstance(json.loads((tmp_path / "val" / "yolov3_scenes" / "detections.json").read_text()), list)
    assert run([*words, "--save-json", "--min-ap", "0"]) == 1
    assert "AP n/a is below --min-ap 0.0" in capsys.readouterr().err


def test_a_run_of_one_step_goes_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", *SCENES, f"project={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "AP 0." in said
    assert "warning" not in said
    folder = tmp_path / "train" / "yolov3_scenes"
    (row,) = csv.DictReader((folder / "results.csv").open())
    assert (row["epoch"], row["step"], float(row["AP"]) >= 0) == ("1", "1", True)
    assert {path.name for path in folder.iterdir()} >= {"PR.png", "confusion.png", "metrics.json", "results.png"}
    assert run(["val", str(folder)]) == 0


@pytest.mark.parametrize("kind", ["mindspore", "ppdet"])
def test_a_warm_up_longer_than_the_training_is_said_before_the_first_step(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"project={tmp_path}", "epochs=2", "warmup_epochs=4", f"optim.warmup={kind}"]
    assert run(["train", *SCENES, *words]) == 0
    said = capsys.readouterr().out
    assert -1 < said.index("warning: the training of 4 steps ends within its warm-up of 8") < said.index("step 1/2")
