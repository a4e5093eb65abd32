"""`pretrained=`: every naming and format gives the same canonical arrays; what does not fit is an error by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from portdet.errors import PortdetError
from portdet_convert import convert, load_canonical, yolov3
from portdet_convert.files import pdparams, safetensors
from portdet_convert.files.source import BFLOAT16, Arrays
from portdet_convert.rules import Naming, Rule, restore


def shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def equal(a: Arrays, b: Arrays) -> bool:
    return set(a) == set(b) and all(np.array_equal(a[name], b[name]) for name in b)


@pytest.mark.parametrize("form", ["ckpt", "npz", "pdparams", "pth", "safetensors", "weights"])
def test_every_format(tmp_path: Path, small: Arrays, form: str) -> None:
    safetensors.write(tmp_path / "in", small)
    convert(tmp_path / "in", tmp_path / f"w.{form}")
    arrays, report = load_canonical(tmp_path / f"w.{form}", shapes(small))
    assert equal(arrays, small)
    assert len(report.loaded) == len(small)
    assert report.summary().endswith("0 missing, 0 unexpected, 0 misshapen, 0 skipped")
    assert all(a.dtype == np.float32 and a.flags.writeable and a.flags.c_contiguous for a in arrays.values())


@pytest.mark.parametrize("naming", [n for n in yolov3.NAMINGS if not n.refused], ids=lambda naming: naming.name)
@pytest.mark.parametrize("wrap", [False, True])
def test_every_naming(tmp_path: Path, small: Arrays, naming: Naming, wrap: bool) -> None:
    named, _ = restore(naming, small)
    prefix = naming.prefixes[0] if wrap and naming.prefixes else ""
    safetensors.write(
        tmp_path / "w",
        {prefix + name.removeprefix(naming.written) if prefix else name: array for name, array in named.items()},
    )
    arrays, report = load_canonical(tmp_path / "w", shapes(small))
    assert equal(arrays, small)
    assert report.naming == naming.name


@pytest.mark.parametrize("form", ["safetensors", "weights", "ckpt"])
def test_a_whole_backbone_is_enough(tmp_path: Path, small: Arrays, small_backbone: Arrays, form: str) -> None:
    safetensors.write(tmp_path / "in", small_backbone)
    convert(tmp_path / "in", tmp_path / f"b.{form}")
    arrays, report = load_canonical(tmp_path / f"b.{form}", shapes(small))
    assert equal(arrays, small_backbone)
    assert (len(report.loaded), len(report.missing)) == (len(small_backbone), len(small) - len(small_backbone))


def test_half_a_backbone_is_not(tmp_path: Path, small: Arrays, small_backbone: Arrays) -> None:
    del small_backbone["backbone.layer3.1.conv2.norm.bias"]
    safetensors.write(tmp_path / "b", small_backbone)
    with pytest.raises(PortdetError, match=r"backbone\.layer3\.1\.conv2\.norm\.bias is missing"):
        load_canonical(tmp_path / "b", shapes(small))
    with pytest.raises(PortdetError, match=r"1 of \d+ tensors are not in the file"):
        convert(tmp_path / "b", tmp_path / "out.pth")


def test_a_backbone_and_half_a_head_is_not(tmp_path: Path, small: Arrays) -> None:
    wanted = shapes(small)
    del small["backblock1.conv6.bias"]
    safetensors.write(tmp_path / "b", small)
    with pytest.raises(PortdetError, match=r"1 of \d+ tensors are not in the file.*backblock1\.conv6\.bias is missing"):
        load_canonical(tmp_path / "b", wanted)
    _, report = load_canonical(tmp_path / "b", wanted, allow_missing=["backblock1.conv6"])
    assert report.missing == ["backblock1.conv6.bias"]


def test_a_misspelt_name_is_shown_beside_the_closest(tmp_path: Path, small: Arrays) -> None:
    wanted = shapes(small)
    small["backblock0.conv3.norm.wieght"] = small.pop("backblock0.conv3.norm.weight")
    safetensors.write(tmp_path / "b", small)
    with pytest.raises(PortdetError, match=r"norm\.weight is missing \(closest: backblock0\.conv3\.norm\.wieght\)"):
        load_canonical(tmp_path / "b", wanted)


def test_another_class_count_needs_to_be_allowed(tmp_path: Path, small: Arrays) -> None:
    """Transfer: the six tensors of the outputs, and those alone, have another shape."""
    wanted = {n: (24, *s[1:]) if ".conv6." in n else s for n, s in shapes(small).items()}
    safetensors.write(tmp_path / "in", small)
    convert(tmp_path / "in", tmp_path / "w.weights")
    for file in ("in", "w.weights"):
        with pytest.raises(PortdetError, match=r"6 tensors have another shape; the first is backblock0\.conv6\."):
            load_canonical(tmp_path / file, wanted)
        heads = [f"backblock{b}.conv6" for b in range(3)]
        arrays, report = load_canonical(tmp_path / file, wanted, allow_misshapen=heads)
        assert set(arrays) == {name for name in small if ".conv6." not in name}
        assert report.misshapen["backblock0.conv6.bias"] == ((18,), (24,))
        assert "6 misshapen" in report.summary()


def test_weights_of_another_model(tmp_path: Path, small: Arrays) -> None:
    safetensors.write(tmp_path / "b", {"layer1.0.conv1.weight": np.ones((2, 2, 1, 1), np.float32)})
    with pytest.raises(PortdetError, match=r"none of its 1 names fits the model.*layer1\.0\.conv1\.weight"):
        load_canonical(tmp_path / "b", shapes(small))


def test_half_precision_is_widened_exactly(tmp_path: Path, small: Arrays) -> None:
    top = {name: array.view("<u4") >> 16 for name, array in small.items()}
    brain = {name: bits.astype("<u2").view(BFLOAT16) for name, bits in top.items()}
    pdparams.write(tmp_path / "b.pdparams", brain)
    arrays, _ = load_canonical(tmp_path / "b.pdparams", shapes(small))
    assert equal(arrays, {name: (bits << 16).astype("<u4").view("<f4") for name, bits in top.items()})


def test_rules_say_when_they_cannot_be_read_backwards() -> None:
    with pytest.raises(PortdetError, match="different placeholders"):
        Rule("{unit}.{leaf}", "{unit}.weight")


def test_two_tensors_that_claim_one_name(tmp_path: Path, small: Arrays) -> None:
    small["module.conv1.conv.weight"] = small["conv1.conv.weight"]
    safetensors.write(tmp_path / "b", small)
    with pytest.raises(PortdetError, match=r"are both 'conv1\.conv\.weight'"):
        load_canonical(tmp_path / "b", shapes(small))


def test_the_state_of_a_run(tmp_path: Path, small: Arrays) -> None:
    """Its weights convert; momentum and average are counted, and its progress is not carried into the output."""
    kinds = ("weights", "momentum", "ema")
    state = {f"{kind}/{name}": array * (kind == "weights") for kind in kinds for name, array in small.items()}
    safetensors.write(tmp_path / "last.safetensors", state, {"progress": "{}"})
    report = convert(tmp_path / "last.safetensors", tmp_path / "w.safetensors")
    assert (len(report.rows), len(report.skipped)) == (len(small), 2 * len(small))
    assert equal(safetensors.read(tmp_path / "w.safetensors")[0], small)
    assert safetensors.read(tmp_path / "w.safetensors")[1] == {}
