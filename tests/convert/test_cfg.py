"""darknet's `.cfg`: its layers, its values to the byte, and every way in which it may be another network."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from portdet.errors import PortdetError
from portdet_convert import cfg, convert, yolov3, yolov3_cfg
from portdet_convert.files import darknet, open_weights

Edit = Callable[[str], str]
THIN8 = (4, 8, 16, 32, 64, 128)


@pytest.fixture
def thin8(oracles: Path, tmp_path: Path) -> Path:
    """A copy of the folder that darknet worked in: yolov3_thin8.cfg, .weights, thin8.conv.74."""
    folder = tmp_path / "darknet"
    folder.mkdir()
    for name in ("yolov3_thin8.cfg", "yolov3_thin8.weights", "thin8.conv.74"):
        shutil.copy(oracles / "darknet_yolov3_thin8" / name, folder)
    return folder


def edited(folder: Path, edit: Edit) -> cfg.Network:
    path = folder / "yolov3_thin8.cfg"
    path.chmod(0o644)
    path.write_text(edit(path.read_text()))
    return cfg.read(path)


def in_layer(number: int, old: str, new: str) -> Edit:
    """Replace text in the section of one layer."""

    def edit(text: str) -> str:
        sections = re.split(r"(?m)^(?=\[)", text)
        changed = sections[number + 2].replace(old, new)  # before it: the text above [net], and [net]
        assert changed != sections[number + 2]
        return "".join([*sections[: number + 2], changed, *sections[number + 3 :]])

    return edit


def whole(network: cfg.Network) -> list[darknet.Conv]:
    return yolov3_cfg.convolutions(network, sum(layer.count for layer in network.layers))


def test_layers_channels_and_bytes(thin8: Path) -> None:
    """107 layers; darknet's own files are filled to the last value by all of them and by the first 75."""
    network = cfg.read(thin8 / "yolov3_thin8.cfg")
    assert (len(network.layers), network.size) == (107, (3, 128, 128))
    values = darknet.count(thin8 / "yolov3_thin8.weights")
    assert values == sum(layer.count for layer in network.layers) == 1_031_113
    assert darknet.count(thin8 / "thin8.conv.74") == sum(layer.count for layer in network.layers[:75])
    assert {n: network.layers[n].cout for n in (0, 74, 81, 82, 86, 98)} == {
        0: 4,
        74: 128,
        81: 255,
        82: 255,
        86: 96,
        98: 48,
    }
    assert whole(network) == yolov3.darknet_order(channels=THIN8, outputs=255)


def test_of_full_width_it_takes_the_bytes_of_the_published_files(thin8: Path) -> None:
    network = edited(thin8, lambda text: re.sub(
        r"filters=(\d+)", lambda m: m[0] if m[1] == "255" else f"filters={8 * int(m[1])}", text
    ))  # fmt: skip
    assert 20 + 4 * sum(layer.count for layer in network.layers) == 248_007_048  # yolov3.weights
    assert 20 + 4 * sum(layer.count for layer in network.layers[:75]) == 162_482_580  # darknet53.conv.74
    assert whole(network) == yolov3.darknet_order(outputs=255)


def test_the_cfg_beside_the_file_is_found_and_named(thin8: Path, tmp_path: Path) -> None:
    report = convert(thin8 / "yolov3_thin8.weights", tmp_path / "w.npz")
    assert len(report.rows) == 366
    assert report.notes == [
        f"layers from {thin8 / 'yolov3_thin8.cfg'} (it lies beside the weights): 75 convolutions, depths 1,2,8,8,4, "
        "channels 4,8,16,32,64,128, 80 classes, input 128x128"
    ]
    given = convert(thin8 / "thin8.conv.74", tmp_path / "b.npz", cfg=thin8 / "yolov3_thin8.cfg")
    assert len(given.rows) == 260
    assert given.notes[0].endswith("52 convolutions, depths 1,2,8,8,4, channels 4,8,16,32,64,128, the backbone alone, "
                                   "input 128x128")  # fmt: skip
    with pytest.raises(PortdetError, match="name the configuration of the model"):
        convert(thin8 / "thin8.conv.74", tmp_path / "x.npz")
    with pytest.raises(PortdetError, match="both say the layers"):
        convert(thin8 / "thin8.conv.74", tmp_path / "x.npz", cfg=thin8 / "yolov3_thin8.cfg", channels=THIN8)


@pytest.mark.parametrize(
    ("weights", "found"),
    [("a.weights", "a"), ("a_last.weights", "a"), ("a_1000.weights", "a"), ("b_2.weights", "b_2"), ("a.conv.74", "a"),
     ("a.ckpt", None), ("c.weights", None), ("_last.weights", None)],
)  # fmt: skip
def test_names_that_darknet_gives_its_files(tmp_path: Path, weights: str, found: str | None) -> None:
    for name in ("a.cfg", "b.cfg", "b_2.cfg"):
        (tmp_path / name).touch()
    assert cfg.beside(tmp_path / weights) == (tmp_path / f"{found}.cfg" if found else None)


def test_other_depths_and_classes_are_read(thin8: Path, tmp_path: Path) -> None:
    """One residual block less in stage 2, three classes: what darknet would write for it converts."""

    def edit(text: str) -> str:
        sections = re.split(r"(?m)^(?=\[)", text)
        del sections[9 + 2 : 12 + 2]  # layers 9 to 11: the second block of stage 2
        text = "".join(sections).replace("classes=80", "classes=3").replace("filters=255", "filters=24")
        return text.replace("layers = -1, 61", "layers = -1, 58").replace("layers = -1, 36", "layers = -1, 33")

    network = edited(thin8, edit)
    convs = whole(network)
    assert convs == yolov3.darknet_order((1, 1, 8, 8, 4), THIN8, outputs=24)
    original = open_weights(thin8 / "yolov3_thin8.weights", lambda _: yolov3.darknet_order(channels=THIN8, outputs=255))
    arrays = {name: original.arrays[name][: shape[0]] for layer in convs for name, shape in layer.tensors}
    darknet.write(thin8 / "yolov3_thin8.weights", arrays, convs)
    report = convert(thin8 / "yolov3_thin8.weights", tmp_path / "w.safetensors")
    assert len(report.rows) == 366 - 10
    assert "depths 1,1,8,8,4" in report.notes[0]
    assert "3 classes" in report.notes[0]
    convert(tmp_path / "w.safetensors", tmp_path / "back.weights")
    assert (tmp_path / "back.weights").read_bytes() == (thin8 / "yolov3_thin8.weights").read_bytes()


def test_other_anchors_are_told(thin8: Path, tmp_path: Path) -> None:
    edited(thin8, lambda text: text.replace("10,13,  16,30", "11,13,  16,30"))
    report = convert(thin8 / "yolov3_thin8.weights", tmp_path / "w.npz")
    assert report.notes[1].startswith("its anchors are not YOLOv3's: set model.anchors to 11,13,16,30,33,23")


@pytest.mark.parametrize(
    ("edit", "line", "what"),
    [
        (in_layer(0, "filters=4", "filters=four"), 27, r"filters=four in \[convolutional\] is not a whole number"),
        (in_layer(0, "filters=4", "filters=-4"), 27, r"filters=-4 .* not a number from 1 on"),
        (in_layer(0, "filters=4", "filters=99999999999"), 27, r"filters=99999999999 .* not a number from 1 on"),
        (in_layer(0, "activation=leaky", "nonsense"), 31, "'nonsense' is neither"),
        (in_layer(0, "filters=4", "filters=4\nfilters=8"), 28, "'filters' is 8 here and 4 on line 27"),
        (in_layer(1, "[convolutional]", "[connected]"), 35, r"layers of kind \[connected\] are not understood"),
        (in_layer(4, "from=-3", "from=-9"), 60, r"\[shortcut\] of layer 4 names -9, which is no layer before it"),
        (in_layer(4, "from=-3", "from=-4"), 60, r"\[shortcut\] adds 4 channels to 8"),
        (in_layer(4, "from=-3", ""), 59, r"\[shortcut\] of layer 4 names nothing"),
        (in_layer(4, "from=-3", "from=-3\nweights_type=per_channel"), 61, "weights_type=per_channel .* not supported"),
        (in_layer(1, "stride=2", "stride=2\ngroups=3"), 40, "groups=3 does not divide 4 and 8 channels"),
        (lambda text: text.replace("channels=3", "channels=0"), 10, r"channels=0 in \[net\] is not a number"),
        (lambda text: text[text.index("[convolutional]"):], None, r"does not begin with \[net\]"),
    ],
)  # fmt: skip
def test_what_is_no_network(thin8: Path, edit: Edit, line: int | None, what: str) -> None:
    with pytest.raises(PortdetError, match=what) as error:
        edited(thin8, edit)
    assert error.value.where == str(thin8 / "yolov3_thin8.cfg") + (f", line {line}" if line else "")


DOUBLED = "[route]\nlayers=-1,-1\n"
LONG = "9" * 5000
HOSTILE: dict[str, Edit] = {
    "escapes in a key": in_layer(0, "filters=4", "\x1b[31m=1\n\x1b[31m=2"),
    "escapes in a value": in_layer(0, "filters=4", "filters=\x1b[31m"),
    "escapes in a line": in_layer(0, "filters=4", "\x1b]0;title\x07"),
    "escapes in an activation": in_layer(0, "activation=leaky", "activation=\x1b[2J"),
    "a long activation": in_layer(0, "activation=leaky", "activation=" + "x" * 100_000),
    "a long key": in_layer(0, "filters=4", f"{'k' * 100_000}=1\n{'k' * 100_000}=2"),
    "a long kind": in_layer(1, "[convolutional]", f"[{'x' * 100_000}]"),
    "a number of 5000 digits": in_layer(0, "filters=4", f"filters={LONG}"),
    "a number of 4000 digits": in_layer(0, "filters=4", f"filters={LONG[:4000]}"),
    "a stride of 4000 digits": in_layer(1, "stride=2", f"stride={LONG[:4000]}"),
    "classes of 4000 digits": in_layer(82, "classes=80", f"classes={LONG[:4000]}"),
    "a mask of 100,000": in_layer(82, "mask = 6,7,8", "mask = " + "1," * 100_000 + "1"),
    "layers of 100,000": in_layer(83, "-4", "-4," * 100_000 + "-4"),
    "channels that double 20,000 times": lambda text: text.split("[yolo]")[0] + DOUBLED * 20_000,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_said_of_a_hostile_cfg(thin8: Path, tmp_path: Path, case: str) -> None:
    """An error that a person can read: no traceback, no megabyte, no terminal's command."""
    path = thin8 / "yolov3_thin8.cfg"
    path.chmod(0o644)
    text = HOSTILE[case](path.read_text())
    assert text != path.read_text()
    path.write_text(text)
    with pytest.raises(PortdetError) as error:
        convert(thin8 / "yolov3_thin8.weights", tmp_path / "w.npz", cfg=path)
    assert len(str(error.value)) < 1000
    assert all(line.isprintable() for line in str(error.value).splitlines())


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (in_layer(0, "activation=leaky", "activation=mish"), "layer 0, .* activation=mish, YOLOv3-DarkNet53 has leaky"),
        (in_layer(1, "pad=1", "pad=0"), "layer 1, .* has padding=0, YOLOv3-DarkNet53 has 1"),
        (in_layer(2, "size=1", "size=3"), "layer 2, .* has size=3, YOLOv3-DarkNet53 has 1"),
        (in_layer(3, "stride=1", "stride=1\ngroups=2"), "layer 3, .* has groups=2, YOLOv3-DarkNet53 has 1"),
        (in_layer(4, "activation=linear", "activation=leaky"), "layer 4, .*shortcut.* has activation=leaky"),
        (in_layer(2, "batch_normalize=1", ""), "layer 2, .* has batch_normalize=0, YOLOv3-DarkNet53 has 1"),
        (in_layer(75, "filters=64", "filters=60"), "layer 75, .* has filters=60, YOLOv3-DarkNet53 has 64"),
        (in_layer(81, "filters=255", "filters=75"), "layer 81, .* has filters=75, YOLOv3-DarkNet53 has 255"),
        (in_layer(82, "mask = 6,7,8", "mask = 0,1,2"), "layer 82, .* has mask=0,1,2, YOLOv3-DarkNet53 has 6,7,8"),
        (in_layer(83, "-4", "-2"), "layer 83, .* has layers=81, YOLOv3-DarkNet53 has 79"),
        (in_layer(85, "stride=2", "stride=4"), "layer 85, .* has stride=4, YOLOv3-DarkNet53 has 2"),
        (in_layer(86, "-1, 61", "61, -1"), "layer 86, .* has layers=61,85, YOLOv3-DarkNet53 has 85,61"),
        (in_layer(77, "[convolutional]", "[maxpool]\nstride=1\nsize=5\n[convolutional]"), r"layer 77 is \[maxpool\]"),
        (lambda text: text + "\n[convolutional]\nfilters=8\n", "layer 107, .*, comes after the end"),
        (lambda text: text.replace("channels=3", "channels=1"), "layer 0 takes 1 channels, not 3"),
        (lambda text: text.replace("stride=2", "stride=1", 1), "layer 1, .* has stride=1, YOLOv3-DarkNet53 has 2"),
    ],
)  # fmt: skip
def test_another_network_is_refused_by_its_first_other_layer(thin8: Path, edit: Edit, what: str) -> None:
    network = edited(thin8, edit)
    with pytest.raises(PortdetError, match=what) as error:
        whole(network)
    assert ", line " in error.value.where
    assert "conversion is known for the layers of yolov3.cfg" in error.value.fix


def test_a_file_of_other_length(thin8: Path) -> None:
    network = cfg.read(thin8 / "yolov3_thin8.cfg")
    with pytest.raises(PortdetError, match=r"take 1031113: 7 left over"):
        yolov3_cfg.convolutions(network, 1_031_120)
    with pytest.raises(PortdetError, match=r"before layer 105, and 8154 of the 8415 values of that layer \(line 772\)"):
        yolov3_cfg.convolutions(network, 1_031_113 - 261)
    cut = sum(layer.count for layer in network.layers[:81])
    with pytest.raises(PortdetError, match=r"first 58 convolutions .*: neither the backbone \(up to layer 74\) nor"):
        yolov3_cfg.convolutions(network, cut)


TAIL = "[avgpool]\n[convolutional]\nfilters=1000\nsize=1\nactivation=linear\n[softmax]\n"


@pytest.mark.parametrize(
    ("tail", "what"),
    [
        (TAIL, ""),
        (TAIL.replace("size=1", "size=3\npad=1"), r"layer 75, \[avgpool\], comes after the end"),
        (TAIL.replace("size=1", "size=1\nbatch_normalize=1"), r"layer 75, \[avgpool\], comes after the end"),
        (TAIL.removeprefix("[avgpool]\n"), r"layer 75, \[convolutional\], comes after the end"),
    ],
    ids=["classifier", "3x3", "norm", "no average"],
)
def test_the_classifier_agrees_with_the_backbone_alone(thin8: Path, tmp_path: Path, tail: str, what: str) -> None:
    """darknet53.conv.74 is cut from darknet53.weights, whose .cfg ends in the classifier."""
    network = edited(thin8, lambda text: "".join(re.split(r"(?m)^(?=\[)", text)[: 75 + 2]) + tail)
    report = convert(thin8 / "thin8.conv.74", tmp_path / "b.npz", cfg=network.path)
    assert len(report.rows) == 260
    if what:
        with pytest.raises(PortdetError, match=what):
            whole(network)
    else:
        assert whole(network) == [*yolov3.backbone_layers(channels=THIN8), yolov3.classifier(128, 1000)]


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"", "is empty"), (b"[net]\n" + b"# \n" * 400_000, "which no .cfg is"), (b"\xff\xfe\x00[net]", "neither"),
     (b"key=value\n[net]", "neither"), (b"[net]\nchannels=" + b"9" * 5000, "not a whole number")],
)  # fmt: skip
def test_what_is_no_cfg(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "x.cfg").write_bytes(content)
    with pytest.raises(PortdetError, match=what):
        cfg.read(tmp_path / "x.cfg")
    with pytest.raises(PortdetError, match="cannot be read"):
        cfg.read(tmp_path / "absent.cfg")


def test_the_anchors_are_the_models() -> None:
    from portdet.models.yolov3 import ANCHORS

    assert tuple(n for anchor in ANCHORS for n in anchor) == yolov3.ANCHORS
