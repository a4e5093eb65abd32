"""darknet's files as pretrained weights: a `.cfg` beside them must agree with the model; a classifier's end is cut."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from portdet.errors import PortdetError
from portdet_convert import convert, load_canonical, open_weights, yolov3
from portdet_convert.files.darknet import count

THIN8 = (4, 8, 16, 32, 64, 128)
Shapes = dict[str, tuple[int, ...]]


@pytest.fixture
def folder(oracles: Path, tmp_path: Path) -> Path:
    """darknet's thin YOLOv3 as x.weights and x.conv.74, x.cfg beside them."""
    given = oracles / "darknet_yolov3_thin8"
    for name, copy in (
        ("yolov3_thin8.weights", "x.weights"),
        ("thin8.conv.74", "x.conv.74"),
        ("yolov3_thin8.cfg", "x.cfg"),
    ):
        shutil.copyfile(given / name, tmp_path / copy)
    return tmp_path


def model(depths: tuple[int, ...] = yolov3.DEPTHS, channels: tuple[int, ...] = THIN8, outputs: int = 255) -> Shapes:
    return {n: shape for layer in yolov3.darknet_order(depths, channels, outputs) for n, shape in layer.tensors}


@pytest.mark.parametrize(("file", "loaded"), [("x.weights", 366), ("x.conv.74", 260)])
def test_the_cfg_beside_is_read_and_named(folder: Path, file: str, loaded: int) -> None:
    arrays, report = load_canonical(folder / file, model())
    (note,) = report.notes
    assert note.startswith(f"layers from {folder / 'x.cfg'} (it lies beside the weights): ")
    (folder / "x.cfg").unlink()
    alone, silent = load_canonical(folder / file, model())
    assert (len(report.loaded), silent.notes) == (loaded, [])
    assert {name: a.tobytes() for name, a in arrays.items()} == {name: a.tobytes() for name, a in alone.items()}


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        (
            model(channels=(8, 16, 32, 64, 128, 256)),
            r"backbone\.conv0, 3 -> 4 channels; in the model backbone\.conv0, 3 -> 8",
        ),
        (
            model((1, 1, 8, 8, 4)),
            r"backbone\.layer2\.1\.conv1, 16 -> 8 .*; in the model backbone\.conv3, 16 -> 32 channels",
        ),
        (model((1, 2, 8, 8, 3)), r"backbone\.layer5\.3\.conv1, 128 -> 64 channels; in the model none"),
        (model((1, 2, 8, 8, 5)), r"none; in the model backbone\.layer5\.4\.conv1, 128 -> 64 channels"),
    ],
    ids=["width", "depth 2", "less of depth 5", "more of depth 5"],
)
@pytest.mark.parametrize("file", ["x.weights", "x.conv.74"])
def test_a_cfg_of_another_network_than_the_model(folder: Path, file: str, wanted: Shapes, what: str) -> None:
    with pytest.raises(PortdetError, match=f"its layers are not the model's: {what}") as error:
        load_canonical(folder / file, wanted)
    assert error.value.where == str(folder / "x.cfg")


def test_a_cfg_of_another_class_count_than_the_file(folder: Path) -> None:
    """The .cfg and the file must agree; the model may have another class count than both."""
    text = (folder / "x.cfg").read_text()
    heads = [f"backblock{head}.conv6" for head in range(3)]
    _, report = load_canonical(folder / "x.weights", model(outputs=24), allow_misshapen=heads)
    assert len(report.misshapen) == 6
    (folder / "x.cfg").write_text(text.replace("classes=80", "classes=3").replace("filters=255", "filters=24"))
    with pytest.raises(PortdetError, match=r"fill the layers of x\.cfg|left over"):
        load_canonical(folder / "x.weights", model())


@pytest.fixture
def classifier(folder: Path) -> Path:
    """As darknet53.weights: after the backbone a 1x1 convolution to 1000 classes, bias and weight; its .cfg beside."""
    head, text = folder / "darknet53.weights", (folder / "x.cfg").read_text()
    more = np.random.default_rng(6).random(1000 + 1000 * 128, dtype=np.float32)
    head.write_bytes((folder / "x.conv.74").read_bytes() + more.tobytes())
    layers = text.split("\n[")
    assert [layer.split("]")[0] for layer in layers[75:77]] == ["shortcut", "convolutional"]
    tail = [
        "avgpool]\n",
        "convolutional]\nfilters=1000\nsize=1\nstride=1\npad=1\nactivation=linear\n",
        "softmax]\ngroups=1\n",
    ]
    (folder / "darknet53.cfg").write_text("\n[".join([*layers[:76], *tail]))
    return head


@pytest.mark.parametrize("beside", [True, False], ids=["cfg", "no cfg"])
def test_imagenets_classifier_is_cut_by_name(classifier: Path, folder: Path, beside: bool) -> None:
    if not beside:
        (folder / "darknet53.cfg").unlink()
    sizes = {} if beside else {"depths": yolov3.DEPTHS, "channels": THIN8}
    report = convert(classifier, folder / "b.conv.74", **sizes)  # type: ignore[arg-type]
    assert report.skipped == dict.fromkeys(("classifier.bias", "classifier.weight"), "output of a classifier")
    assert "2 (2 output of a classifier) skipped" in report.summary()
    assert ["a classifier of 1000 classes" in note for note in report.notes] == [True] * beside
    assert (folder / "b.conv.74").read_bytes() == (folder / "x.conv.74").read_bytes()
    arrays, loaded = load_canonical(classifier, model())
    assert (len(arrays), len(loaded.skipped)) == (260, 2)
    assert "  skipped 2, output of a classifier: classifier.bias, classifier.weight" in loaded.lines()


def test_the_classifier_s_values(classifier: Path, folder: Path) -> None:
    """Shown as they lie in the file: bias, then weight."""
    values = np.fromfile(classifier, np.float32, offset=20)
    layers = [*yolov3.backbone_layers(channels=THIN8), yolov3.classifier(128, 1000)]
    arrays = open_weights(classifier, lambda _: layers).arrays
    assert np.array_equal(arrays["classifier.bias"], values[-129_000:-128_000])
    assert np.array_equal(arrays["classifier.weight"].reshape(-1), values[-128_000:])
    assert count(classifier) == len(values)


def test_of_full_size() -> None:
    """1,025,000 values more than darknet53.conv.74, whose 40,620,640 are the published file's."""
    layers = yolov3.layers_for(40_620_640 + 1000 * 1024 + 1000)
    assert (len(layers), layers[-1]) == (53, yolov3.classifier(1024, 1000))
    for wrong in (40_620_640 + 999 * 1025, 40_620_640 + 1000 * 1024):
        with pytest.raises(PortdetError, match="nor that with ImageNet's classifier"):
            yolov3.layers_for(wrong)
