"""Files in the names of other programs: `portdet convert --names`, the way back of the rules."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from portdet import versions
from portdet.models import load_model
from portdet.spec.init import initial_weights
from portdet_convert import command, convert, open_weights, yolov3
from portdet_convert.files import safetensors
from portdet_convert.files.source import Arrays
from tests.bundles import listed

HERE = Path(__file__).parent


def of_ppdet(_: Path) -> set[str]:
    return {name for name, *_ in json.loads((HERE / "ppdet_yolov3.json").read_text())["tensors"]}


def of_mindspore_models(oracles: Path) -> set[str]:
    """Names in a checkpoint of its training; its evaluation and its fine-tuning take off `yolo_network.`."""
    weights = listed(oracles / "msmodels_yolov3")
    buffers = np.load(oracles / "msmodels_yolov3" / "buffers.npz").files
    return {name.removeprefix("yolo_network.") for name in [*(w["name"] for w in weights), *buffers]}


@pytest.fixture
def thin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arrays:
    """YOLOv3 at full depth with few channels; in w.safetensors."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    fresh = initial_weights(load_model({"name": "yolov3", "width": 1 / 16, "classes": 1}, imgsz=64, batch=1).graph, 1)
    arrays = {n: a if a.ndim == 4 else a + rng.random(a.shape, np.float32) / 4 for n, a in fresh.items()}
    safetensors.write("w.safetensors", arrays)
    return arrays


def run(*words: str) -> Result:
    return CliRunner().invoke(command.convert, words)


@pytest.mark.parametrize(("names", "suffix"), [("ppdet", "pdparams"), ("mindspore-models", "ckpt")])
def test_the_programs_own_names(thin: Arrays, oracles: Path, names: str, suffix: str) -> None:
    done = run("w.safetensors", "-o", f"w.{suffix}", "--names", names)
    assert done.exit_code == 0, done.output
    written = open_weights(f"w.{suffix}").arrays
    assert set(written) == (of_ppdet(oracles) if names == "ppdet" else of_mindspore_models(oracles))


@pytest.mark.parametrize("names", list(yolov3.PROGRAMS))
def test_there_and_back(thin: Arrays, names: str) -> None:
    convert("w.safetensors", "there.npz", names=names)
    report = convert("there.npz", "back.safetensors")
    back = open_weights("back.safetensors").arrays
    assert {name: back[name].tobytes() for name in thin} == {name: array.tobytes() for name, array in thin.items()}
    assert len(back) == len(report.rows) == len(thin)
    assert not report.skipped


def test_a_check_of_other_names(thin: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    """The framework's own loader reads them; the model gets them through the rules."""
    installed = versions.framework
    monkeypatch.setattr(versions, "framework", lambda name: installed(name) if name == "paddle" else None)
    done = run("w.safetensors", "-o", "w.pdparams", "--names", "ppdet", "--check")
    assert done.exit_code == 0, done.output
    assert f"paddle.load: {len(thin)} tensors, same bits" in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("w.safetensors", "-o", "w.weights", "--names", "ppdet"), "a darknet file holds no names"),
        (("other.npz", "-o", "o.pdparams", "--names", "ppdet"), "of its 1 names fits the model"),
    ],
)
def test_where_there_are_no_names(thin: Arrays, words: tuple[str, ...], said: str) -> None:
    np.savez("other.npz", anything=np.zeros(3, np.float32))
    done = run(*words)
    assert done.exit_code != 0
    assert said in str(done.exception)
    assert not Path(words[2]).exists()
