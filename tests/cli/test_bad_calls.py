"""Calls that cannot work: each says why, and leaves nothing behind in the project folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from portdet.cli.__main__ import run

TINY = ["yolov3_scenes", "train_count=4", "val_count=2", "batch=2", "scene_size=64", "imgsz=64", "workers=0",
        "threads=1", "max_steps=1"]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("runs")
    assert run(["train", *TINY, f"project={project}"]) == 0
    return project / "train" / "yolov3_scenes"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two images, an animation of two frames, a film, a text and a folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in (("a.jpg", "red"), ("b.PNG", "blue")):
        Image.new("RGB", (32, 24), colour).save(folder / name)
    frames = [Image.new("RGB", (20, 30), colour) for colour in ("green", "white")]
    frames[0].save(folder / "c.gif", save_all=True, append_images=frames[1:])
    for name in ("clip.mp4", "notes.txt", "more.mp4"):
        (folder / name).write_bytes(b"no image")
    (folder / "inside").mkdir()
    return folder


BAD = {
    "train": [
        (["--device", "cuda"], "CUDA"),
        (["--device", "npu"], "torch_npu"),
        (["--device", "toaster"], "toaster"),
        (["--device", "cuda", "--devices", "2"], "CUDA"),
        (["--backend", "torsh"], "did you mean 'torch'?"),
        (["--mode", "fast"], "train.mode = 'fast'"),
        (["model.widht=1"], "did you mean 'width'?"),
        (["model.classes=7"], "7"),
        (["imgsz=65"], "multiple of 32"),
        (["max_boxes=1"], "max_boxes"),
        (["batch=5"], "data.batch"),
        (["batch=3", "--devices", "2"], "batch"),
        (["freeze=[nobody]"], "nobody"),
        (["warmup_steps=1", "warmup_epochs=1"], "warm-up of 1 steps and of 1 epochs"),
        (["nms_kind=matrix"], "matrix"),
        (["pretrained=nowhere.pth"], "nowhere.pth"),
        (["data.format=coco", "data.train=nowhere.json"], "nowhere.json"),
        (["--folder", "own", "--device", "cuda"], "CUDA"),
        (["--resume", "nowhere"], "no run folder"),
    ],
    "val": [
        (["--device", "cuda"], "CUDA"),
        (["--device", "npu"], "torch_npu"),
        (["--device", "toaster"], "toaster"),
        (["--backend", "torsh"], "did you mean 'torch'?"),
        (["model.widht=1"], "did you mean 'width'?"),
        (["model.width=2"], "weight"),
        (["nms_kind=matrix"], "matrix"),
        (["data.format=coco", "data.val=nowhere.json"], "nowhere.json"),
        (["--weights", "nowhere"], "no weights at nowhere"),
    ],
    "predict": [
        (["PHOTO", "--device", "cuda"], "CUDA"),
        (["PHOTO", "--backend", "torsh"], "did you mean 'torch'?"),
        (["PHOTO", "model.width=2"], "weight"),
        (["nowhere.jpg"], "no file or folder 'nowhere.jpg'"),
        (["PHOTO", "CLIP"], "ffmpeg -i"),
    ],
    "align": [
        (["--backends", "torch", "--device", "cuda"], "no backend finished"),
        (["--backends", "torch,torsh"], "did you mean 'torch'?"),
        (["model.widht=1"], "did you mean 'width'?"),
        (["data.format=coco", "data.train=nowhere.json"], "nowhere.json"),
        (["--initial", "nowhere.safetensors", "--backends", "torch"], "nowhere.safetensors"),
    ],
}  # fmt: skip


CASES = [(verb, *case, "there") for verb, cases in BAD.items() for case in cases]
CASES += [(verb, *cases[0], "new/deep") for verb, cases in BAD.items()]  # where even the project's folder is made


@pytest.mark.parametrize(("verb", "words", "said", "project"), CASES)
def test_nothing_is_left(
    verb: str, words: list[str], said: str, project: str, trained: Path, photos: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    before = set(tmp_path.rglob("*"))
    target = [str(trained)] if verb in ("val", "predict") else [] if "--resume" in words else TINY
    names = {"PHOTO": str(photos / "a.jpg"), "CLIP": str(photos / "clip.mp4")}
    assert run([verb, *target, *(names.get(word, word) for word in words), f"project={project}"]) in (1, 3)
    assert said in capsys.readouterr().err
    assert set(tmp_path.rglob("*")) == before


def test_an_older_run_folder_stays(trained: Path, tmp_path: Path) -> None:
    """exist_ok writes into it, so a failure does not take it away."""
    words = ["val", str(trained), f"project={tmp_path}", "exist_ok=true"]
    assert run(words) == 0
    before = set(tmp_path.rglob("*"))
    assert run([*words, "--device", "cuda"]) == 1
    assert set(tmp_path.rglob("*")) == before


def test_what_a_folder_of_images_leaves_out_is_said(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And an animation counts by its first frame, of 20 x 30 pixels."""
    assert run(["predict", str(trained), str(photos), f"project={tmp_path}"]) == 0
    said = capsys.readouterr()
    assert "4 entries are no images and left out: 2 .mp4, 1 folder, 1 .txt" in said.err
    assert "ffmpeg -i VIDEO" in said.err
    assert f"{photos / 'c.gif'}: its first frame or page alone" in said.err
    assert "3 images, 0 skipped" in said.out
    listed = json.loads((tmp_path / "predict" / "yolov3_scenes" / "predictions.json").read_text())
    assert [(Path(row["file"]).name, row["width"], row["height"]) for row in listed] == [
        ("a.jpg", 32, 24), ("b.PNG", 32, 24), ("c.gif", 20, 30),
    ]  # fmt: skip
    for path in photos.glob("*.[jPg][pNi]*"):
        path.unlink()
    assert run(["predict", str(trained), str(photos), f"project={tmp_path}"]) == 1
    assert "no images found; " in capsys.readouterr().err


def test_an_unreadable_image_gets_no_advice_of_training(
    trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "a.jpg").write_bytes(b"no image")
    with pytest.raises(SystemExit):
        run(["predict", str(trained), str(photos / "a.jpg"), f"project={tmp_path}"])
    said = capsys.readouterr().err
    assert f"skipped {photos / 'a.jpg'}: unreadable image" in said
    assert "bad_image" not in said


@pytest.mark.parametrize("name", ["best", "last"])
@pytest.mark.parametrize("verb", ["val", "predict"])
def test_a_weights_file_knows_its_configuration(
    verb: str, name: str, trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """That of the run it lies in; elsewhere the one that is written into it."""
    weights = trained / "weights" / f"{name}.safetensors"
    alone = tmp_path / "alone.safetensors"
    shutil.copy(weights, alone)
    rest = [str(photos / "a.jpg")] if verb == "predict" else []
    for file, said in ((weights, f"with the configuration of the run {trained}"), (alone, "written into the file")):
        assert run([verb, str(file), *rest, f"project={tmp_path}", f"name={file.stem}"]) == 0
        assert said in capsys.readouterr().out
        assert "width: 0.125" in (tmp_path / verb / file.stem / "args.yaml").read_text(), "not the default model"
    monkeypatch.chdir(weights.parent)
    assert run([verb, weights.name, *rest, f"project={tmp_path}", "name=near"]) == 0
    assert said


@pytest.mark.parametrize("verb", ["val", "predict"])
def test_a_target_that_is_nothing_is_called_so(
    verb: str, trained: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.safetensors"
    save_file({"a": np.zeros(3)}, bare)
    (tmp_path / "x.pth").write_bytes(b"")
    for target, said, advice in (
        (
            f"{trained}x",
            f"no run folder, weights file or configuration '{trained}x'",
            f"did you mean '{trained.name}'?",
        ),
        (
            "yolov3_scene",
            "no run folder, weights file or configuration 'yolov3_scene'",
            "did you mean 'yolov3_scenes'?",
        ),
        ("yolov3_scenes", "no weights given for the configuration", "--weights FILE"),
        (str(photos), "is no run folder: it has no args.yaml", "portdet train"),
        (str(bare), f"no configuration for {bare}", f"CONFIG --weights {bare}"),
        (str(tmp_path / "x.pth"), f"no configuration for {tmp_path / 'x.pth'}", "CONFIG --weights"),
    ):
        words = [verb, target, *([str(photos / "a.jpg")] if verb == "predict" else [])]
        assert run(words) == 1
        error = capsys.readouterr().err
        assert said in error
        assert advice in error
    assert run([verb, str(bare), *words[2:], "--weights", str(bare)]) == 1
    assert "two weights files" in capsys.readouterr().err
