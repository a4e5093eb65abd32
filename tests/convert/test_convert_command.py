"""`portdet convert` and `portdet weights`, called as the command line calls them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from portdet.errors import PortdetError
from portdet.models import load_model
from portdet_convert import open_weights
from portdet_convert.command import convert
from portdet_convert.files import npz, safetensors
from portdet_convert.files.source import Arrays


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return CliRunner()


def test_convert(run: CliRunner, small: Arrays) -> None:
    safetensors.write("w.safetensors", small)
    done = run.invoke(convert, ["w.safetensors", "-o", "w.ckpt", "--report", "r.json"], catch_exceptions=False)
    assert done.exit_code == 0
    assert f"w.safetensors (safetensors, torch names) -> w.ckpt (ckpt): {len(small)} tensors" in done.output
    rows = json.loads(Path("r.json").read_text())["rows"]
    assert rows[0] == {
        "source": "backbone.conv0.norm.bias", "target": "backbone.conv0.norm.beta", "shape": [2], "dtype": "float32",
        "target_dtype": "float32", "transform": "same", "checksum": rows[0]["checksum"],
    }  # fmt: skip
    assert {row["target"] for row in rows} == set(open_weights("w.ckpt").arrays)


def test_convert_names_its_output_by_the_format(run: CliRunner, small_backbone: Arrays) -> None:
    safetensors.write("w.safetensors", small_backbone)
    for to, name in (("darknet", "w.weights"), ("pth", "w.pth"), ("npz", "w.npz")):
        assert run.invoke(convert, ["w.safetensors", "--to", to], catch_exceptions=False).exit_code == 0
        assert Path(name).is_file()


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (["absent", "-o", "x.pth"], "absent: cannot be read: No such file"),
        (["w.safetensors"], "no output"),
        (["w.safetensors", "-o", "x.onnx"], "cannot tell the format of 'x.onnx'"),
        (["w.safetensors", "-o", "x.pth", "--model", "nothing"], "no configuration 'nothing'"),
    ],
)
def test_convert_errors(run: CliRunner, small: Arrays, args: list[str], what: str) -> None:
    safetensors.write("w.safetensors", small)
    done = run.invoke(convert, args)
    assert isinstance(done.exception, PortdetError)
    assert what in str(done.exception)
    assert not list(Path().glob("x.*"))


def test_a_darknet_file_takes_its_channels_from_the_configuration(run: CliRunner, oracles: Path) -> None:
    Path("thin.yaml").write_text("model:\n  name: yolov3\n  width: 0.125\n")
    source = shutil.copy(oracles / "darknet_yolov3_thin8/yolov3_thin8.weights", "in.weights")  # away from its .cfg
    done = run.invoke(convert, [source, "-o", "w.pth", "--model", "thin.yaml"], catch_exceptions=False)
    assert "366 tensors, 1,031,113 values" in done.output
    with pytest.raises(PortdetError, match="name the configuration of the model"):
        run.invoke(convert, [source, "-o", "x.pth"], catch_exceptions=False)


TINY = {"name": "yolov3", "depths": [1, 1, 2, 1, 1], "width": 0.125, "classes": 1}
CLASSES = "model: {{name: yolov3, depths: [1, 1, 2, 1, 1], width: 0.125{classes}}}\ndata: {{format: {data}{names}}}\n"
NAMES = {
    "the names": ({"data": "coco", "names": ", names: [one]", "classes": ""}, ""),
    "the names of a VOC data set": ({"data": "voc", "names": ", names: [one]", "classes": ""}, ""),
    "two names": ({"data": "coco", "names": ", names: [one, two]", "classes": ""}, "(18,) in the file, (21,) in the"),
    "the count": ({"data": "coco", "names": "", "classes": ", classes: 1"}, ""),
    "names that the file does not say": ({"data": "coco", "names": "", "classes": ""}, ""),
    "another count": ({"data": "coco", "names": "", "classes": ", classes: 3"}, "(18,) in the file, (24,) in the"),
    "drawn scenes": ({"data": "scenes", "names": "", "classes": ""}, "(18,) in the file, (24,) in the"),
}  # fmt: skip


@pytest.mark.parametrize("case", NAMES)
@pytest.mark.parametrize("to", ["y.weights", "y.pth"])
def test_the_classes_are_those_of_the_configuration_s_data(run: CliRunner, case: str, to: str) -> None:
    """Three outputs of 5 + classes each: 18 for one class, 21 for two, 24 for three, by hand."""
    words, said = NAMES[case]
    arrays = {n: i.shape for n, i in load_model(TINY, imgsz=64).graph.weights().items()}
    npz.write("x.npz", {name: np.full(shape, 0.5, np.float32) for name, shape in arrays.items()})
    Path("own.yaml").write_text(CLASSES.format(**words))
    done = run.invoke(convert, ["x.npz", "-o", to, "--model", "own.yaml"], catch_exceptions=False)
    assert done.exit_code == 0
    assert (said in done.output) if said else ("class count" not in done.output), done.output


def test_names_and_a_class_count_that_disagree(run: CliRunner, small: Arrays) -> None:
    safetensors.write("w.safetensors", small)
    Path("own.yaml").write_text("model: {name: yolov3, classes: 2}\ndata: {format: coco, names: [one]}\n")
    done = run.invoke(convert, ["w.safetensors", "-o", "x.pth", "--model", "own.yaml"])
    assert isinstance(done.exception, PortdetError)
    assert "model.classes = 2, but the data has 1 classes: ['one']" in str(done.exception)


@pytest.mark.parametrize("section", ["{name: yolov3, depths: 3}", "{name: yolov3, width: wide}", "{name: [a]}", "{}"])
def test_a_model_section_that_is_wrong(run: CliRunner, small: Arrays, section: str) -> None:
    safetensors.write("w.safetensors", small)
    Path("own.yaml").write_text(f"model: {section}\n")
    done = run.invoke(convert, ["w.safetensors", "-o", "x.pth", "--model", "own.yaml"])
    assert isinstance(done.exception, PortdetError)
    assert not Path("x.pth").exists()
