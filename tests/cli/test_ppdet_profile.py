"""PaddleDetection's YOLOv3 from the command line: trained on mixed images, converted to its file and scored from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from portdet.cli.__main__ import run

TINY = """
model: {name: yolov3, profile: ppdet, width: 0.0625, depths: [1, 1, 1, 1, 1]}
data: {train_count: 4, val_count: 2, batch: 2, scene_size: 64, imgsz: 64, workers: 0, resize: stretch_cubic}
augment: {kind: ppyolo}
optim: {lr0: 0.001, warmup: ppdet, warmup_steps: 1}
eval: {nms_kind: multiclass, objectness: 0.005, conf: 0.01, nms: 0.45, pixel_offset: 0}
train: {epochs: 1, threads: 1, seed: 3}
"""


def test_from_training_to_its_file_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, file = tmp_path / "own.yaml", tmp_path / "own.pdparams"
    config.write_text(TINY)
    assert run(["train", str(config), f"project={tmp_path}"]) == 0
    folder = tmp_path / "train" / "own"
    assert "scores" in (folder / "model_torch.py").read_text(), "boxes of mixed images weigh what their image does"
    assert "profile: ppdet" in (folder / "args.yaml").read_text()
    assert run(["convert", str(folder / "weights" / "best.safetensors"), "-o", str(file), "--names", "ppdet"]) == 0
    capsys.readouterr()
    found = []
    for name, words in (("run", [str(folder)]), ("file", [str(config), "--weights", str(file)])):
        assert run(["val", *words, f"project={tmp_path}", f"name={name}", "--save-json", "true"]) == 0
        found.append(json.loads((tmp_path / "val" / name / "detections.json").read_text()))
    assert found[0] == found[1] != []
    assert all(one["score"] > 0.01 for one in found[0])
    assert "ppdet names" in capsys.readouterr().out
    words = ["val", str(config), "--weights", str(file), f"project={tmp_path}", "model.profile=darknet"]
    assert run(words) == 0
    assert "they were trained in profile ppdet" in capsys.readouterr().out


def test_another_profile_weighs_no_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "own.yaml"
    config.write_text(TINY)
    assert run(["train", str(config), f"project={tmp_path}", "model.mixed=false"]) == 1
    assert "mixed images need a model whose loss weighs boxes" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [config]
