"""`portdet data`: VOC to COCO, scenes to files, and what is shown of a data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from portdet.cli.__main__ import run
from portdet.config import DataConfig
from portdet.data import open_dataset
from tests.unprivileged import portdet

XML = """<annotation><filename>a.png</filename><size><width>20</width><height>10</height></size>
<object><name>cat</name><bndbox><xmin>3</xmin><ymin>2</ymin><xmax>6</xmax><ymax>5</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>15</xmin><ymin>1</ymin><xmax>25</xmax><ymax>4</ymax></bndbox></object>
</annotation>"""


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "voc"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    (root / "Annotations/a.xml").write_text(XML)
    (root / "ImageSets/Main/train.txt").write_text("a\n")
    Image.new("RGB", (20, 10)).save(root / "JPEGImages/a.png")
    return root


def test_convert_writes_coco_and_tells_what_it_clipped(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = voc / "train.json"
    assert run(["data", "convert", "voc", str(voc), "--split", "ImageSets/Main/train.txt", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"{out}: 1 images, 2 boxes; classes cat, dog" in printed
    assert "1 boxes reached outside their image and were clipped (a.png)" in printed
    # VOC counts from 1 and includes the last pixel: 3..6 is four wide; 15..25 ends at the border, 20
    boxes = [annotation["bbox"] for annotation in json.loads(out.read_text())["annotations"]]
    assert boxes == [[2, 1, 4, 4], [14, 0, 6, 4]]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "found: ImageSets/Main/train.txt"),
        (["--split", "ImageSets/Main/trian.txt"], "trian.txt"),
        (["--split", "ImageSets/Main/train.txt", "--names", "cat"], "unknown class 'dog'"),
        (["--split", "ImageSets/Main/train.txt", "--bad-box", "error"], "leaves the image"),
    ],
)
def test_convert_refuses(words: list[str], text: str, voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = voc / "train.json"
    assert run(["data", "convert", "voc", str(voc), "-o", str(out), *words]) == 1
    assert text in capsys.readouterr().err
    assert not out.exists()


def test_written_scenes_are_the_drawn_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scenes"
    words = ["--count", "5", "--val-count", "2", "--size", "96"]
    assert run(["data", "scenes", "-o", str(out), *words]) == 0
    settings = {key: value for key, _, value in (w.partition("=") for w in capsys.readouterr().out.split() if "=" in w)}
    files = DataConfig(**{key.removeprefix("data."): value for key, value in settings.items()})
    drawn = DataConfig(train_count=5, val_count=2, scene_size=96)
    for split in ("train", "val"):
        a, b = open_dataset(files, split), open_dataset(drawn, split)
        assert (a.names, len(a)) == (b.names, len(b))
        for one, other in zip(a.records, b.records, strict=True):
            assert np.array_equal(a.read(one), b.read(other))
            assert np.array_equal(one.boxes, other.boxes)
            assert np.array_equal(a.masks(one), b.masks(other))
    truth = COCO(str(out / "train.json"))  # pycocotools reads it, masks included
    assert sum(truth.annToMask(a).sum() for a in truth.loadAnns(truth.getAnnIds())) > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scenes"]

    assert run(["data", "scenes", "-o", str(out)]) == 1
    assert "is there already" in capsys.readouterr().err


def test_scenes_leave_nothing_behind_in_a_folder_that_refuses(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = portdet(tmp_path, "data", "scenes", "-o", "scenes", "--count", "2")
    tmp_path.chmod(0o700)
    assert done.returncode == 1
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_show_counts_and_draws(voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, pictures = tmp_path / "c.yaml", tmp_path / "pictures"
    listed = "ImageSets/Main/train.txt"
    config.write_text(f"data: {{format: voc, root: {voc}, train: {listed}, val: {listed}, names: [cat, dog, eel]}}")
    assert run(["data", "show", str(config), "--pictures", str(pictures)]) == 0
    printed = capsys.readouterr().out
    assert "train: 1 images, 2 boxes" in printed
    assert "! 1 boxes reached outside their image and were clipped (a.png)" in printed
    names = ["labels_train.png", "labels_val.png", "samples_train.jpg", "samples_val.jpg"]
    assert sorted(path.name for path in pictures.iterdir()) == names
    assert run(["data", "show", str(config), "--json", "--bad-box", "error"]) == 1
    capsys.readouterr()
    assert run(["data", "show", str(config), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["train"]["per_class"] == {
        "cat": {"boxes": 1, "images": 1},
        "dog": {"boxes": 1, "images": 1},
        "eel": {"boxes": 0, "images": 0},
    }
