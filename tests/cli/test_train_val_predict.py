"""The main verbs on a tiny run, with torch: what they write, that resume gives the same bits, and their errors."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from portdet.cli.__main__ import run
from tests.patience import GUARD

TINY = [
    "yolov3_scenes", "epochs=2", "train_count=12", "val_count=4", "batch=4", "scene_size=64", "imgsz=64", "workers=0",
    "threads=1", "log_every=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("runs")
    assert run(["train", *TINY, f"project={project}"]) == 0
    return project / "train" / "yolov3_scenes"


def test_a_run_leaves_what_users_expect(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "args.yaml", "environment.json", "session.json", "model_torch.py", "results.csv", "results.png", "steps.csv",
        "labels.png", "train_batch.jpg", "val_batch.jpg", "metrics.json", "PR.png", "confusion.png", "weights",
    }  # fmt: skip
    assert not [path for path in folder.rglob(".*") if path.is_file()], "a temporary file was left"
    rows = list(csv.DictReader((folder / "results.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    steps = list(csv.DictReader((folder / "steps.csv").open()))
    assert len(steps) == 6
    losses = [sum(float(s[k]) for k in ("xy", "wh", "obj", "cls")) / float(s["loss"]) for s in steps]
    assert np.allclose(losses, 1, rtol=1e-5)


def test_resume_after_an_interruption_gives_the_same_bits(folder: Path, tmp_path: Path) -> None:
    assert run(["train", *TINY, f"project={tmp_path}", "max_steps=4"]) == 0
    again = tmp_path / "train" / "yolov3_scenes"
    assert run(["train", "--resume", str(again), "max_steps=0"]) == 0
    whole, parts = (load_file(path / "weights" / "last.safetensors") for path in (folder, again))
    assert whole.keys() == parts.keys()
    assert [name for name in whole if whole[name].tobytes() != parts[name].tobytes()] == []
    assert (folder / "steps.csv").read_text() == (again / "steps.csv").read_text()


def test_another_run_differs_so_that_the_comparison_can_fail(folder: Path, tmp_path: Path) -> None:
    assert run(["train", *TINY, f"project={tmp_path}", "seed=1", "epochs=1"]) == 0
    other = load_file(tmp_path / "train" / "yolov3_scenes" / "weights" / "last.safetensors")
    whole = load_file(folder / "weights" / "last.safetensors")
    assert whole["weights/backblock0.conv6.bias"].tobytes() != other["weights/backblock0.conv6.bias"].tobytes()


def test_the_second_run_gets_the_next_folder(folder: Path) -> None:
    assert run(["train", *TINY, f"project={folder.parents[1]}", "epochs=1"]) == 0
    assert (folder.parent / "yolov3_scenes2" / "results.csv").is_file()


def test_val_gives_the_numbers_of_the_best_epoch(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["val", str(folder), "save_json=true", "train.devices=2"]) == 0
    rows = [float(row["AP"]) for row in csv.DictReader((folder / "results.csv").open())]
    found = folder.parents[1] / "val" / "yolov3_scenes"
    assert json.loads((found / "metrics.json").read_text())["AP"] == pytest.approx(max(rows), abs=1e-12)
    assert isinstance(json.loads((found / "detections.json").read_text()), list)
    said = capsys.readouterr()
    assert "per class" in said.out
    assert "on one device: train.devices=2 is for `portdet train`" in said.err


def test_val_below_the_demanded_ap_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["val", str(folder), "--min-ap", "0.99"]) == 1
    assert "below --min-ap 0.99" in capsys.readouterr().err


def test_predict_draws_images_and_counts_what_it_skips(folder: Path, tmp_path: Path) -> None:
    assert run(["data", "scenes", "-o", str(tmp_path / "scenes"), "--count", "2"]) == 0
    images = sorted((tmp_path / "scenes").rglob("*.png")) + sorted((tmp_path / "scenes").rglob("*.jpg"))
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff no image")
    words = ["predict", str(folder), *map(str, images[:2]), f"project={tmp_path}", "--score", "0.001"]
    assert run(words) == 0
    with pytest.raises(SystemExit):
        run([*words, str(broken)])
    listed = json.loads((tmp_path / "predict" / "yolov3_scenes" / "predictions.json").read_text())
    assert len(listed) == 2
    assert all(row["score"] >= 0.001 for image in listed for row in image["boxes"])
    assert len(list((tmp_path / "predict" / "yolov3_scenes").glob("*.jpg"))) == 2
    assert run(["predict", str(folder), str(images[0]), str(images[0]), f"project={tmp_path}", "name=twice"]) == 0
    assert len(list((tmp_path / "predict" / "twice").glob("*.jpg"))) == 2, "one drawing took the other's place"


def test_pretrained_weights_are_counted_and_used(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backbone alone, and a whole model with another number of classes; the step is tiny, so weights stay near."""
    whole = load_file(folder / "weights" / "best.safetensors")
    backbone = {name: array for name, array in whole.items() if name.startswith("backbone.")}
    other = {n: np.concatenate([a, a])[: 3 * 9] if ".conv6." in n else a for n, a in whole.items()}
    rest = ["seed=5", "epochs=1", "lr0=1e-8", "warmup_epochs=0", "schedule=constant", "ema.kind=none"]
    for name, arrays in (("backbone", backbone), ("other", other)):
        save_file(arrays, tmp_path / f"{name}.safetensors")
        words = [f"pretrained={tmp_path / name}.safetensors", f"name={name}", f"project={tmp_path}"]
        assert run(["train", *TINY, *rest, *words]) == 0
        said = capsys.readouterr().out
        trained = load_file(tmp_path / "train" / name / "weights" / "last.safetensors")
        kernel = "backbone.layer3.0.conv2.conv.weight"
        assert np.allclose(trained[f"weights/{kernel}"], whole[kernel], atol=1e-5)
        assert not np.allclose(trained["weights/backblock0.conv6.weight"], whole["backblock0.conv6.weight"], atol=1e-3)
        assert f"{len(backbone) if name == 'backbone' else len(whole) - 6} loaded" in said
        assert ("skipped backblock2.conv6.bias: (27,) in the file, (24,) in the model" in said) == (name == "other")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "yolov3_scenes", "epoch=3"], "did you mean 'epochs'"),
        (["train", "yolov3_scenes", "model.widht=1"], "did you mean 'width'"),
        (["train", "yolov3_scenes", "--device", "Ascend"], "torch_npu"),
        (["train", "yolov3_scenes", "--device", "cuda"], "CUDA"),
        (["train", "yolov3_scenes", "max_boxes=1"], "max_boxes"),
        (["train", "yolov3_scenes", "model.classes=7"], "7"),
        (["train", "no_such_config"], "no configuration"),
        (["train", "--resume", "nowhere"], "no run folder"),
        (["val", "yolov3_scenes"], "no weights given"),
        (["predict", "nowhere", "x.jpg", "--weights", "w"], "no weights at w"),
    ],
)
def test_a_mistake_is_explained(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*words, *(["workers=0", "threads=1"] if words[0] == "train" else [])]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_interrupt_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys, threading\n"
        "from portdet.cli.__main__ import run\n"
        "import portdet.train.loop as loop\n"
        "step = loop.Trainer._step\n"
        "def counted(self, *batch):\n"
        "    step(self, *batch)\n"
        "    if self.progress.step == 4: os.kill(os.getpid(), signal.SIGINT)\n"
        "loop.Trainer._step = counted\n"
        f"sys.exit(run(['train', *{TINY!r}, 'project={tmp_path}']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=GUARD)
    assert done.returncode == 130, done.stderr
    assert "portdet train --resume" in done.stderr
    again = tmp_path / "train" / "yolov3_scenes"
    assert run(["train", "--resume", str(again)]) == 0
    assert len(list(csv.DictReader((again / "steps.csv").open()))) == 6
