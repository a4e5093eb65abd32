"""PP-YOLO through `portdet convert` and `portdet weights`: every format and naming, there and back; what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from portdet.errors import PortdetError
from portdet.models import load_model
from portdet.models.ppyolo import Config, build
from portdet_convert import command, convert, open_weights, ppyolo, ppyolo_model
from portdet_convert.files import WRITERS, pdparams, safetensors
from portdet_convert.files.source import Arrays
from portdet_convert.rules import restore
from portdet_convert.weights_command import weights
from tests.bundles import listed
from tests.convert import ppyolo_case

VARIANTS = ("nano", "r50vd_dcn", "r18vd", "v2")


def narrow(variant: str, **fields: Any) -> Arrays:
    """A variant at full depth with few channels. Names do not depend on widths."""
    section = {"variant": variant, "classes": 3, "width": 8, "neck_width": 16, **fields}
    rng = np.random.default_rng(2)  # no value is negative: any may be a variance
    return {n: rng.random(p.shape, np.float32) for n, p in build(Config.model_validate(section)).items()}


@pytest.fixture(scope="module")
def thin() -> dict[str, Arrays]:
    return {variant: narrow(variant) for variant in VARIANTS}


@pytest.fixture
def folder(tmp_path: Path, thin: dict[str, Arrays], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with each variant as VARIANT.safetensors, and there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for variant, arrays in thin.items():
        safetensors.write(f"{variant}.safetensors", arrays)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(command.convert, words)


def miemies(name: str) -> str:
    """PaddleDetection's name of a tensor -> miemiedetection's, as its converter renames them."""
    name = name.replace("._mean", ".running_mean").replace("._variance", ".running_var")
    name = re.sub(
        r"(yolo_block|yolo_transition|yolo_output|fpn|pan|fpn_transition|pan_transition)\.(\d)", r"\1_\2", name
    )
    return re.sub(r"((?:fpn|pan)_\d\.conv_module\.\d)\.(\d)", r"\1_\2", name)


def published(variant: str, oracles: Path) -> set[str]:
    """PaddleDetection's own names."""
    if variant != "r50vd_dcn":
        return set(ppyolo_case.names(variant))
    bundle = oracles / "ppdet_ppyolo_r50vd_dcn"
    return {entry["name"] for entry in listed(bundle)} | set(np.load(bundle / "buffers.npz").files)


@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_the_programs_own_names(folder: Path, oracles: Path, variant: str) -> None:
    theirs = published(variant, oracles)
    for names, want in (("ppdet", theirs), ("miemiedetection", {miemies(name) for name in theirs})):
        done = run(f"{variant}.safetensors", "-o", "w.npz", "--names", names)
        assert done.exit_code == 0, done.exception
        assert set(open_weights("w.npz").arrays) == want


@pytest.mark.parametrize("variant", VARIANTS)
def test_there_and_back(folder: Path, thin: dict[str, Arrays], variant: str) -> None:
    """Through every format and every naming: the same file again, to the byte."""
    source = Path(f"{variant}.safetensors")
    for form, names in [*((form, None) for form in WRITERS), *(("npz", names) for names in ppyolo.PROGRAMS)]:
        report = convert(source, "there", to=form, names=names)
        assert (len(report.rows), report.skipped, report.notes) == (len(thin[variant]), {}, [])
        report = convert("there", "back.safetensors")
        assert Path("back.safetensors").read_bytes() == source.read_bytes()
        assert names is None or re.sub(" PP-YOLO$", "", report.naming) == names


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_a_backbone_alone(folder: Path, form: str) -> None:
    """As PaddleDetection publishes them: trained on ImageNet, no `backbone.` before the names, perhaps a classifier."""
    plain = restore(
        ppyolo.PPDET_PLAIN, {n: a for n, a in narrow("r50vd_dcn", deformable=False).items() if n[:4] == "back"}
    )
    named = {name.removeprefix("backbone."): array for name, array in plain[0].items()}
    assert "res5.res5a.branch2b.conv.weight" in named
    pdparams.write("ResNet50_vd.pdparams", {**named, "fc.weight": np.ones((8, 9), "f4"), "fc.bias": np.ones(9, "f4")})
    report = convert("ResNet50_vd.pdparams", "b", to=form)
    assert (report.naming, len(report.rows)) == ("ppdet PP-YOLO backbone", len(named))
    assert report.skipped == dict.fromkeys(("fc.weight", "fc.bias"), "output of a classifier")
    back = convert("b", "back.pdparams", names="ppdet")
    assert len(back.rows) == len(named)
    again = open_weights("back.pdparams").arrays
    assert {n.removeprefix("backbone."): a.tobytes() for n, a in again.items()} == {
        n: a.tobytes() for n, a in named.items()
    }


@pytest.mark.parametrize(
    "section",
    [
        *({"variant": variant} for variant in VARIANTS),
        {"variant": "nano", "classes": 1},
        {"variant": "r50vd_dcn", "deformable": False, "depths": (1, 2, 3, 1)},
        {"variant": "v2", "width": 8, "neck_width": 16},
        {"variant": "r18vd", "depths": (1, 1, 1, 1), "neck_width": 32},
        {"variant": "r18vd", "deformable": True, "width": 6},
    ],
    ids=str,
)
def test_the_model_is_told_from_the_shapes(section: dict[str, Any]) -> None:
    """And described as a variant and what differs from it."""
    given = {"name": "ppyolo", "classes": 7, **section}
    shapes = {n: i.shape for n, i in load_model(given, imgsz=96, batch=1).graph.weights().items()}
    assert ppyolo_model.section(shapes) == given
    assert ppyolo_model.expected(shapes) == list(shapes)
    assert ppyolo_model.wanted(shapes) == shapes
    backbone = {name: shape for name, shape in shapes.items() if name.startswith("backbone.")}
    assert ppyolo_model.expected(backbone) == list(backbone)
    assert ppyolo_model.wanted(backbone) == backbone


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-o", "w.weights"), "nano.safetensors: is PP-YOLO: darknet has no such layers, its files hold YOLOv3"),
        (("--to", "darknet", "-o", "w"), "is PP-YOLO: darknet has no such layers"),
        (("-o", "w.ckpt", "--names", "mindspore-models"), "is PP-YOLO, of which mindspore-models has no weights"),
        (("-o", "w.ckpt", "--model", "yolov3_coco"), "is PP-YOLO, the configuration's model is 'yolov3'"),
        (("-o", "w.ckpt", "--model", "wide.yaml"), "is (4, 3, 3, 3) in the file, in the model it is (8, 3, 3, 3)"),
    ],
)
def test_what_does_not_fit(folder: Path, words: tuple[str, ...], said: str) -> None:
    Path("wide.yaml").write_text("model: {name: ppyolo, variant: nano}\n")
    done = run("nano.safetensors", *words)
    assert isinstance(done.exception, PortdetError)
    assert said in str(done.exception)
    assert not Path(words[1]).exists()


def test_names_of_another_model(folder: Path, small: Arrays) -> None:
    safetensors.write("yolo.safetensors", small)
    with pytest.raises(PortdetError, match="is YOLOv3-DarkNet53, of which miemiedetection has no weights"):
        convert("yolo.safetensors", "w.pth", names="miemiedetection")


@pytest.mark.parametrize("names", ["ppdet", "miemiedetection"])
def test_every_tensor_once(folder: Path, thin: dict[str, Arrays], names: str) -> None:
    """One too few, one misspelt, one of another shape, one twice."""
    lost = "neck.block1.tip.conv.norm.bias"
    named, place = restore(ppyolo.PROGRAMS[names], thin["nano"])
    lost = place["neck.block1.tip.conv.norm.bias"]
    square = place["neck.block0.conv0.conv.conv.weight"]

    def refused(arrays: Arrays, match: str) -> None:
        safetensors.write("bad", arrays)
        with pytest.raises(PortdetError, match=match):
            convert("bad", "w.npz")
        assert not Path("w.npz").exists()

    rest = {name: array for name, array in named.items() if name != lost}
    refused(rest, r"1 of 270 tensors are not in the file, 0 .*neck\.block1\.tip\.conv\.norm\.bias is missing")
    refused({**rest, f"{lost}s": named[lost]}, rf"1 of .*{re.escape(lost)}s is not of this model")
    refused(
        {**named, square: named[square].transpose(1, 0, 2, 3)},
        r"tensor 'neck.block0.conv0.* is \(258, 16, 1, 1\), its layer takes \(16, 258, 1, 1\)",
    )
    refused({**named, f"module.{lost}": named[lost]}, "are both '")
    refused({**named, lost: named[lost] * np.float32("nan")}, "is nan at")


def test_wrapped_as_training_saves_it(folder: Path, thin: dict[str, Arrays]) -> None:
    """`{'model': ...}` of miemiedetection, with torch's counters, and beside it the optimiser's state."""
    named, _ = restore(ppyolo.MIEMIE, thin["v2"])
    counters = {
        name.replace("running_var", "num_batches_tracked"): np.array(7) for name in named if "running_var" in name
    }
    wrapped = {f"model.{name}": array for name, array in {**named, **counters}.items()}
    safetensors.write("w", {**wrapped, "optimizer.state.0.momentum_buffer": np.ones(3, np.float32)})
    report = convert("w", "v2.npz")
    assert (len(report.rows), len(report.skipped)) == (len(named), len(counters) + 1)
    assert set(report.skipped.values()) == {"counter of batch norm, not a weight", "optimiser state"}


def test_heads_of_another_class_count_are_named(folder: Path) -> None:
    Path("five.yaml").write_text("model: {name: ppyolo, variant: nano, classes: 5, width: 8, neck_width: 16}\n")
    done = run("nano.safetensors", "-o", "w.pdparams", "--model", "five.yaml")
    assert done.exit_code == 0, done.exception
    assert "6 tensors of the output layers are of another class count than five.yaml's" in done.output
    assert "  output0.weight: (27, 32, 1, 1) in the file, (33, 32, 1, 1) in the model\n" in done.output


def test_show_and_diff(folder: Path, thin: dict[str, Arrays]) -> None:
    """By canonical names, whoever's names the files have, in the network's order."""
    convert("nano.safetensors", "a.pdparams", names="ppdet")
    changed = {name: array.copy() for name, array in thin["nano"].items()}
    changed["output1.bias"][2] += 1
    changed["backbone.res5.0.conv2.conv_offset.weight"][0, 0, 0, 0] += 0.5
    safetensors.write("b.safetensors", dict(reversed(changed.items())))
    convert("b.safetensors", "b.pth", names="miemiedetection")
    shown = CliRunner().invoke(weights, ["show", "b.pth"])
    assert "yolo_head.yolo_output_1.bias" in shown.output
    assert "270 tensors" in shown.output
    same = CliRunner().invoke(weights, ["diff", "nano.safetensors", "a.pdparams"])
    assert (same.exit_code, same.output) == (0, "0 of 270 tensors differ\n")
    differ = CliRunner().invoke(weights, ["diff", "a.pdparams", "b.pth"])
    assert differ.exit_code == 1
    assert "2 of 270 tensors differ; the largest difference is 1, in output1.bias" in differ.output
    assert differ.output.index("conv2.conv_offset.weight") < differ.output.index("│ output1.bias")
