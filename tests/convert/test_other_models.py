"""Files of models that portdet does not have: never taken for one that it has, names kept, and what a user must know.

Names are those that the programs give (PaddleDetection's SOLOv2 and Deformable DETR, fundamentalvision's Deformable
DETR, torchvision's ResNet), written down by hand; shapes are narrow.
"""

from __future__ import annotations

import json
import pickle
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from portdet.cli.__main__ import run
from portdet.errors import PortdetError
from portdet.models import load_model
from portdet.spec.init import initial_weights
from portdet_convert import convert, load_canonical, models, open_weights, yolov3
from portdet_convert.files import WRITERS, pth, safetensors
from portdet_convert.files import pickle_write as op
from portdet_convert.files.source import Arrays
from portdet_convert.rules import UnknownModel, restore

BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}


def resnet_vd(deformable: tuple[int, ...] = (3, 4, 5)) -> Iterator[str]:
    """ppdet's ResNet50-vd with deformable convolutions in these stages: units of a convolution and its norm."""
    for i in (1, 2, 3):
        yield from unit(f"backbone.conv1.conv1_{i}")
    for stage, count in BLOCKS.items():
        for letter in "abcdef"[:count]:
            block = f"backbone.res{stage}.res{stage}{letter}"
            for branch in "abc":
                yield from unit(f"{block}.branch2{branch}")
            if stage in deformable:
                yield from (f"{block}.branch2b.conv_offset.{leaf}" for leaf in ("weight", "bias"))
        yield from unit(f"backbone.res{stage}.res{stage}a.short{'' if stage == 2 else '.conv'}")


def unit(path: str) -> Iterator[str]:
    yield f"{path}.conv.weight"
    yield from (f"{path}.norm.{leaf}" for leaf in ("weight", "bias", "_mean", "_variance"))


def both(*paths: str) -> Iterator[str]:
    yield from (f"{path}.{leaf}" for path in paths for leaf in ("weight", "bias"))


def solov2() -> list[str]:
    """PaddleDetection's: neck and heads that no YOLO has, and entries that stand under two names."""
    found = list(resnet_vd())
    found += both("neck.fpn_inner_res5_sum", *(f"neck.fpn_inner_res{i}_sum_lateral" for i in (2, 3, 4)))
    found += both(*(f"neck.fpn_res{i}_sum" for i in (2, 3, 4, 5)))
    for branch in ("kernel", "cate"):
        for i in range(4):
            path = f"solov2_head.bbox_head.{branch}_convs.{i}"
            found += [f"{path}.conv.weight", *both(f"{path}.norm")]
        found += both(f"solov2_head.bbox_head.solo_{branch}", f"solov2_head.solo_{branch}")
    for i in range(4):
        for j in range(max(i, 1)):
            path = f"mask_head.conv_pre_feat{i}.mask_feat_head.convs_all_levels.{i}.conv{j}"
            found += [f"{path}.conv.weight", *both(f"{path}.norm")]
    return [*found, "mask_head.mask_feat_head.conv_pred.0.conv.weight", "mask_head.conv_pred.conv.weight"]


def transformer(fused: bool) -> Iterator[str]:
    for side in ("encoder", "decoder"):
        for i in range(6):
            path = f"transformer.{side}.layers.{i}"
            cross = "self_attn" if side == "encoder" else "cross_attn"
            for part in ("sampling_offsets", "attention_weights", "value_proj", "output_proj"):
                yield from both(f"{path}.{cross}.{part}")
            yield from both(*(f"{path}.norm{k}" for k in (1, 2, 3)), f"{path}.linear1", f"{path}.linear2")
            if fused:
                yield from (f"{path}.self_attn.in_proj_weight", f"{path}.self_attn.in_proj_bias")
    yield "transformer.level_embed"


def deformable_detr() -> list[str]:
    """fundamentalvision's, with torchvision's names under `backbone.0.body`."""
    found = [name.replace("layer", "backbone.0.body.layer") for name in torchvision()]
    return [*found, *transformer(fused=True), *both("class_embed.0", "bbox_embed.0.layers.0"), "query_embed.weight"]


def paddle_detr() -> list[str]:
    """PaddleDetection's, on the backbone that PP-YOLO has."""
    return [*resnet_vd(()), *transformer(fused=False), *both("detr_head.score_head", "detr_head.bbox_head.layers.0")]


def torchvision() -> list[str]:
    leaves = ("weight", "bias", "running_mean", "running_var")
    found = []
    for stage, count in BLOCKS.items():
        for i in range(count):
            for k in (1, 2, 3):
                path = f"layer{stage - 1}.{i}"
                found += [f"{path}.conv{k}.weight", *(f"{path}.bn{k}.{leaf}" for leaf in leaves)]
    return found


def filled(names: list[str]) -> Arrays:
    """Matrices where a Linear's or an embedding's weight stands, kernels of four axes elsewhere."""
    rng = np.random.default_rng(5)
    linear = re.compile(r"(offsets|weights|proj|linear\d|score_head|embed\.0|layers\.0)\.weight$|in_proj_weight$")
    out: Arrays = {}
    for name in dict.fromkeys(names):
        shape: tuple[int, ...] = (4,)
        if linear.search(name) or name.endswith("_embed.weight"):
            shape = (4, 6)
        elif name.endswith(("conv.weight", "conv1.weight", "conv2.weight", "conv3.weight")):
            shape = (4, 2, 1, 1)
        out[name] = rng.random(shape, np.float32)
    return out


OTHERS = {
    "SOLOv2": (solov2, "pdparams", "it looks like SOLOv2, whose backbone has names of this one's"),
    "ppdet's Deformable DETR": (paddle_detr, "pdparams", "it looks like Deformable DETR, whose backbone has"),
    "Deformable DETR": (deformable_detr, "pth", "looks like Deformable DETR"),
    "torchvision's ResNet": (torchvision, "pth", "looks like torchvision's ResNet"),
}  # fmt: skip


@pytest.fixture(params=OTHERS)
def other(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """A file of another model, and what is said of it."""
    monkeypatch.chdir(tmp_path)
    names, form, looks = OTHERS[request.param]
    path = Path(f"other.{form}")
    WRITERS[form](path, filled(names()))
    return path, looks


def test_another_model_keeps_its_names_in_every_format(other: tuple[Path, str]) -> None:
    path, looks = other
    before = open_weights(path).arrays
    for form in WRITERS:
        report = convert(path, f"w.{form}")
        assert report.naming == "no known"
        assert looks in report.notes[0], report.notes
        after = open_weights(f"w.{form}").arrays
        assert list(after) == list(before)
        assert all(after[name].tobytes() == array.tobytes() for name, array in before.items())


def test_another_model_is_not_loaded_as_one_of_ours(other: tuple[Path, str]) -> None:
    path, looks = other
    for section in ({"name": "ppyolo"}, {"name": "yolov3"}):
        shapes = {name: info.shape for name, info in load_model(section, imgsz=96).graph.weights().items()}
        with pytest.raises(PortdetError) as error:
            load_canonical(path, shapes)
        assert looks.split(",")[0].removeprefix("it ") in str(error.value)
        assert "allow the names" not in str(error.value)


def test_another_model_under_given_names(other: tuple[Path, str], capfd: pytest.CaptureFixture[str]) -> None:
    """Refused, with advice that works."""
    path, looks = other
    for words in (["--names", "torch"], ["--to", "darknet"]):
        assert run(["convert", str(path), "-o", "w.npz", *words]) == 1
        err = capfd.readouterr().err
        assert looks.removeprefix("it ") in err
        assert "convert the file without naming one: it keeps its names" in err
        assert "give a file of PP-YOLO" not in err
    assert run(["convert", str(path), "-o", "w.npz"]) == 0
    assert run(["weights", "diff", str(path), "w.npz"]) == 0
    assert "compared by the names in the files" in capfd.readouterr().out


def whole(name: str) -> Arrays:
    """Fresh weights of one of our models, narrow where it can be, under canonical names."""
    section = {"name": name, "classes": 2} | ({"variant": "r18vd"} if name == "ppyolo" else {"width": 0.125})
    return dict(initial_weights(load_model(section, imgsz=96).graph, 0))


CASES = [(name, program) for name, known in models.KNOWN.items() for program in known.programs]


@pytest.mark.parametrize(("name", "program"), CASES)
def test_a_backbone_is_a_backbone_and_its_model_is_told_by_the_rest(tmp_path: Path, name: str, program: str) -> None:
    """Under the names of every program: alone it is known, with a strange head it is not, with its own head it is."""
    known, path = models.KNOWN[name], tmp_path / "w.safetensors"
    canonical = whole(name)
    every, names = restore(known.programs[program], canonical)
    trunk = {names[n]: every[names[n]] for n in canonical if n.startswith("backbone.")}
    strange = {f"other_head.{i}.weight": np.ones((2, 2, 1, 1), np.float32) for i in range(len(trunk) // 4)}

    safetensors.write(path, trunk)
    assert models.of(models.recognise(trunk, "safetensors").arrays) is known
    assert convert(path, tmp_path / "a.npz").naming != "no known"

    safetensors.write(path, {**trunk, **strange})
    with pytest.raises(UnknownModel, match=f"{len(strange)} of its tensors are of another model: other_head"):
        models.recognise({**trunk, **strange}, "safetensors")
    assert convert(path, tmp_path / "b.npz").naming == "no known"

    safetensors.write(path, every)
    assert convert(path, tmp_path / "c.npz").naming != "no known"
    lost = next(names[n] for n in canonical if not n.startswith("backbone."))
    safetensors.write(path, {n: array for n, array in every.items() if n != lost})
    with pytest.raises(PortdetError, match=rf"1 of {len(every)} tensors are not in the file"):
        convert(path, tmp_path / "d.npz")


# Layouts


def linear(axes: str) -> Arrays:
    """A Linear of 3 inputs and 5 outputs, one without a bias, a table, and a batch norm, as a framework has them."""
    shape = (3, 5) if axes == "(in, out)" else (5, 3)
    weight = np.arange(15, dtype=np.float32).reshape(shape)
    return {
        "fc.weight": weight, "fc.bias": np.arange(5, dtype=np.float32), "proj.weight": weight + 1,
        "table.weight": np.arange(14, dtype=np.float32).reshape(7, 2), "conv.weight": np.ones((2, 3, 1, 1), np.float32),
    }  # fmt: skip


LAYOUTS = [
    ("pdparams", "pth", "(in, out)", "a Linear's weight is (in, out), torch's is (out, in)"),
    ("pdparams", "ckpt", "(in, out)", "a Linear's weight is (in, out), MindSpore's is (out, in)"),
    ("pdparams", "npz", "(in, out)", "a Linear's weight is (in, out), torch's and MindSpore's are (out, in)"),
    ("pth", "pdparams", "(out, in)", "a Linear's weight is (out, in), Paddle's is (in, out)"),
    ("ckpt", "pdparams", "(out, in)", "a Linear's weight is (out, in), Paddle's is (in, out)"),
    ("safetensors", "pdparams", "(out, in)", "a Linear's weight is (out, in), Paddle's is (in, out)"),
    ("safetensors", "pth", "(in, out)", "a Linear's weight is (in, out), torch's is (out, in)"),
    ("pth", "ckpt", "(out, in)", ""),
    ("pth", "npz", "(out, in)", ""),
    ("safetensors", "pth", "(out, in)", ""),
    ("npz", "pdparams", "(in, out)", ""),
]


@pytest.mark.parametrize(("source", "target", "axes", "said"), LAYOUTS)
def test_a_linear_is_said_not_to_be_transposed(tmp_path: Path, source: str, target: str, axes: str, said: str) -> None:
    """That Paddle's F.linear is x W with W (in, out) and the others' x W^T, each framework's manual says."""
    given = linear(axes)
    WRITERS[source](tmp_path / f"a.{source}", given)
    report = convert(tmp_path / f"a.{source}", tmp_path / f"b.{target}")
    notes = "\n".join(report.notes)
    assert (said in notes) if said else ("transposed" not in notes), notes
    assert ("by their biases these are: fc.weight" in notes) == bool(said)
    assert report.untransposed == (["fc.weight", "proj.weight", "table.weight"] if said else [])
    after = open_weights(tmp_path / f"b.{target}").arrays
    assert all(np.array_equal(after[name], array) for name, array in given.items())


def test_batch_norms_of_another_framework_are_named(tmp_path: Path) -> None:
    norm = {f"x.bn.{leaf}": np.ones(2, np.float32) for leaf in ("weight", "bias", "_mean", "_variance")}
    WRITERS["pdparams"](tmp_path / "a.pdparams", norm)
    notes = convert(tmp_path / "a.pdparams", tmp_path / "b.pth").notes
    assert any("1 batch norms keep Paddle's names (weight, bias, _mean, _variance); torch's are" in n for n in notes)
    assert not any("batch norms" in n for n in convert(tmp_path / "a.pdparams", tmp_path / "b.npz").notes)


# Aliases


def tied(path: Path) -> None:
    """A torch file whose second tensor is the first one's storage, transposed, and whose third begins in its middle."""
    pid = op.tuple_([op.text("storage"), op.name("torch", "FloatStorage"), op.text("0"), op.text("cpu"), op.integer(6)])

    def tensor(first: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
        parts = [op.tuple_([op.integer(n) for n in values]) for values in (size, stride)]
        args = [pid + b"Q", op.integer(first), *parts, op.FALSE, b"}"]
        return op.name("torch._utils", "_rebuild_tensor_v2") + op.tuple_(args) + b"R"

    table = b"\x80\x02}(" + op.text("embed.weight") + tensor(0, (3, 2), (2, 1))
    table += op.text("decode.weight") + tensor(0, (2, 3), (1, 2)) + op.text("part") + tensor(3, (3,), (1,)) + b"u."
    head = pth.MAGIC + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    path.write_bytes(head + table + pickle.dumps(["0"], 2) + struct.pack("<q6f", 6, *range(6)))


def test_names_that_share_a_storage_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tied(Path("tied.pth"))
    assert run(["weights", "show", "tied.pth"]) == 0
    said = "2 tensors share the values of another in the file: decode.weight = embed.weight, part = embed.weight"
    assert said in capfd.readouterr().out
    assert run(["weights", "show", "tied.pth", "--json"]) == 0
    rows = {row["name"]: row["shares"] for row in json.loads(capfd.readouterr().out)["tensors"]}
    assert rows == {"embed.weight": None, "decode.weight": "embed.weight", "part": "embed.weight"}
    assert run(["convert", "tied.pth", "-o", "w.npz", "--report", "r.json"]) == 0
    assert said in capfd.readouterr().out
    assert json.loads(Path("r.json").read_text())["shared"] == {"decode.weight": "embed.weight", "part": "embed.weight"}
    assert open_weights("w.npz").arrays["decode.weight"].tolist() == [[0, 2, 4], [1, 3, 5]]


def test_tensors_that_were_stored_twice_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As PaddleDetection's SOLOv2 has them. Zeros and ones are alike in any model, and one number says nothing."""
    monkeypatch.chdir(tmp_path)
    values, zeros, one = np.arange(4, dtype=np.float32), np.zeros(4, np.float32), np.ones(1, np.float32)
    given = {
        "a": values,
        "zero": zeros,
        "one": one,
        "b": values.copy(),
        "c": values.reshape(2, 2),
        "zero2": zeros.copy(),
    }
    WRITERS["pdparams"](Path("w.pdparams"), {**given, "one2": one.copy()})
    assert run(["weights", "show", "w.pdparams", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["same_bits"] == {"b": "a"}
    assert run(["convert", "w.pdparams", "-o", "w.npz"]) == 0
    assert "1 tensors have the bits of another, so they may be one: b = a" in capfd.readouterr().out


def test_a_small_file_does_not_become_a_full_disk(tmp_path: Path) -> None:
    """20 names of one storage are a model that nobody has."""
    tensor = pickle.dumps(np.zeros(1000, np.float32), 4)[2:-1] + b"\x940"
    names = b"".join(op.text(f"w{i}") + b"h\x64" for i in range(20))
    data = b"\x80\x04" + tensor.replace(b"\x940", b"q\x640") + b"}(" + names + b"u."
    (tmp_path / "w").write_bytes(data)
    with pytest.raises(PortdetError, match=r"its 20 tensors take 80000 bytes of a file of \d+: too many share"):
        open_weights(tmp_path / "w")


def test_a_number_in_a_name_makes_no_blocks() -> None:
    """`backbone.layer5.9999` alone would be a network of 100,000 convolutions."""
    assert len(yolov3.expected(["backbone.layer5.9999.conv1.conv.weight"])) < 1000
