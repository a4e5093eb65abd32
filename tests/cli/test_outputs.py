"""No command writes over a file that it reads, or two of its own outputs into one file, whatever they are called."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from portdet.align.compare import DumpWriter
from portdet.cli.__main__ import run
from portdet.errors import PortdetError
from portdet.files import distinct
from portdet.predict import drawings

XML = """<annotation><filename>a.png</filename><size><width>20</width><height>10</height></size>
<object><name>cat</name><bndbox><xmin>3</xmin><ymin>2</ymin><xmax>6</xmax><ymax>5</ymax></bndbox></object></annotation>"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One of everything that a command reads, in the working directory."""
    monkeypatch.chdir(tmp_path)
    save_file({"w": np.arange(4, dtype=np.float32)}, "a.safetensors")
    Path("base.yaml").write_text("model: {name: yolov3, width: 0.0625, depths: [1, 1, 1, 1, 1], classes: 3}\n")
    Path("own.yaml").write_text("_base_: base.yaml\ndata: {imgsz: 64}\n")
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        Path("voc", folder).mkdir(parents=True)
    Path("voc/Annotations/a.xml").write_text(XML)
    Path("voc/ImageSets/Main/train.txt").write_text("a\n")
    for name in ("a.png", "labels_train.png", "samples_val.jpg"):
        Image.new("RGB", (20, 10)).save(Path("voc/JPEGImages") / name)
    Path("names.yaml").write_text("theirs: forward/x\n")
    for name in ("ref.safetensors", "cand.safetensors", "self.safetensors", "truth.safetensors"):
        with DumpWriter(Path(name)) as out:
            out.put("forward/x", np.ones(3, np.float32))
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


SPLIT = ["--split", "ImageSets/Main/train.txt"]
COMPARE = ["compare", "ref.safetensors", "cand.safetensors", "--self", "self.safetensors"]
# A command, its option, and the file that it must not lead to.
TABLE: dict[str, tuple[list[str], str, str]] = {
    "convert, source": (["convert", "a.safetensors", "--to", "npz"], "-o", "a.safetensors"),
    "convert, report over source": (["convert", "a.safetensors", "-o", "b.npz"], "--report", "a.safetensors"),
    "convert, report over result": (["convert", "a.safetensors", "-o", "b.npz"], "--report", "b.npz"),
    "convert, result over report": (["convert", "a.safetensors", "--report", "b.npz"], "-o", "b.npz"),
    "convert, configuration": (
        ["convert", "a.safetensors", "--to", "npz", "--model", "own.yaml"], "-o", "own.yaml",
    ),
    "convert, base": (["convert", "a.safetensors", "--to", "npz", "--model", "own.yaml"], "-o", "base.yaml"),
    "convert, report over base": (
        ["convert", "a.safetensors", "-o", "b.npz", "--model", "own.yaml"], "--report", "base.yaml",
    ),
    "emit, configuration": (["emit", "own.yaml"], "-o", "own.yaml"),
    "emit, base": (["emit", "own.yaml"], "-o", "base.yaml"),
    "data convert, annotation": (["data", "convert", "voc", "voc", *SPLIT], "-o", "voc/Annotations/a.xml"),
    "data convert, image": (["data", "convert", "voc", "voc", *SPLIT], "-o", "voc/JPEGImages/a.png"),
    "data convert, list": (["data", "convert", "voc", "voc", *SPLIT], "-o", "voc/ImageSets/Main/train.txt"),
    "compare, reference": (COMPARE, "--json", "ref.safetensors"),
    "compare, candidate": (COMPARE, "--json", "cand.safetensors"),
    "compare, self-run": (COMPARE, "--json", "self.safetensors"),
    "compare, float64": ([*COMPARE, "--float64", "truth.safetensors"], "--json", "truth.safetensors"),
    "compare, names": ([*COMPARE, "--rename", "names.yaml"], "--json", "names.yaml"),
    "compare, guessed names": ([*COMPARE, "--rename", "names.yaml"], "--guess-names", "names.yaml"),
}  # fmt: skip


def linked(path: str) -> str:
    os.symlink(os.path.abspath(path), "link" + Path(path).suffix)
    return "link" + Path(path).suffix


def hard(path: str) -> str:
    os.link(path, "hard" + Path(path).suffix)
    return "hard" + Path(path).suffix


WAYS: dict[str, Callable[[str], str]] = {
    "its name": lambda path: path,
    "a detour": lambda path: f"voc/../{path}",
    "its whole path": os.path.abspath,
    "a symlink": linked,
    "a hard link": hard,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", TABLE)
def test_nothing_is_written_over_what_is_read(
    here: Path, capfd: pytest.CaptureFixture[str], case: str, way: str
) -> None:
    words, option, path = TABLE[case]
    if "b.npz" in path and way in ("a symlink", "a hard link"):
        Path("b.npz").write_bytes(b"old")
    target = WAYS[way](path)
    before = files(here)
    assert run([*words, option, target]) in (1, 3)
    out, err = capfd.readouterr()
    assert "would overwrite" in err, err
    assert "Traceback" not in out + err
    assert files(here) == before


def test_pictures_of_a_data_set_are_not_drawn_over_its_images(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["data", "convert", "voc", "voc", *SPLIT, "-o", "train.json"]
    assert run(words) == 0
    text = Path("train.json").read_text().replace("a.png", "labels_train.png")
    Path("train.json").write_text(text)
    Path("data.yaml").write_text(
        "data: {format: coco, root: ., train: train.json, val: train.json, train_images: voc/JPEGImages, "
        "val_images: voc/JPEGImages}\n"
    )
    before = files(here)
    assert run(["data", "show", "data.yaml", "--pictures", "voc/JPEGImages"]) == 1
    assert "would overwrite labels_train.png" in capfd.readouterr().err
    assert files(here) == before


def test_two_new_names_that_are_one_where_case_does_not_count(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["convert", "a.safetensors", "-o", "new.npz", "--report", "NEW.npz"]) == 1
    assert "--report would overwrite the converted file (new.npz)" in capfd.readouterr().err
    assert not Path("new.npz").exists()


def test_what_is_apart_is_left_alone(here: Path) -> None:
    """Another folder, an old output of the same command, a file that is not there."""
    os.mkdir("sub")
    distinct({"a": "x", "b": "sub/x", "c": None}, {"in": "a.safetensors", "none": None, "gone": "nowhere/y"})
    with pytest.raises(PortdetError, match="b would overwrite in"):
        distinct({"b": "nowhere/../nowhere/y"}, {"in": "nowhere/y"})
    for _ in range(2):
        assert run(["convert", "a.safetensors", "-o", "b.npz", "--report", "r.json"]) == 0


def test_every_image_has_a_drawing_of_its_own(tmp_path: Path) -> None:
    names = ["a.png", "a.jpg", "b/a.png", "a_2.png", "A.png", "c.png"]
    found = [path.name for path in drawings([tmp_path / name for name in names], tmp_path)]
    assert found == ["a.jpg", "a_2.jpg", "a_3.jpg", "a_2_2.jpg", "A_4.jpg", "c.jpg"]
    assert len({name.casefold() for name in found}) == len(names)
