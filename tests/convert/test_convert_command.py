"""`portdet convert` and `portdet weights`, called as the command line calls them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from portdet.errors import PortdetError
from portdet_convert import open_weights
from portdet_convert.command import convert
from portdet_convert.files import safetensors
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
