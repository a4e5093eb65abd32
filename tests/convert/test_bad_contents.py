"""Whole files with the wrong weights in them: each format, through the command line, to each format."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from portdet.cli.__main__ import run
from portdet_convert.files import WRITERS, safetensors
from portdet_convert.files.source import BFLOAT16, Array, Arrays, as_float32

FORMATS = sorted(WRITERS)
Fails = Callable[[Arrays, str], None]


@pytest.fixture(params=FORMATS)
def fails(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Fails:
    """Written in one format and converted to each: an error that names the file, and the old output as it was."""
    monkeypatch.chdir(tmp_path)

    def check(arrays: Arrays, match: str) -> None:
        WRITERS[request.param](tmp_path / "in", arrays)
        for suffix in ("npz", "weights"):
            Path(f"out.{suffix}").write_bytes(b"old")
            assert run(["convert", "in", "-o", f"out.{suffix}"]) == 1
            out, err = capfd.readouterr()
            assert err.startswith("error: in: "), err
            assert re.search(match, err), err
            assert "Traceback" not in out + err
            assert "Warning" not in out + err
            assert Path(f"out.{suffix}").read_bytes() == b"old"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.npz", "out.weights"]

    return check


def test_a_tensor_missing(fails: Fails, small: Arrays) -> None:
    del small["backblock1.conv3.norm.running_mean"]
    fails(small, r"1 of 196 tensors are not in the file, .*: backblock1\.conv3\.norm\.running_mean is missing")


def test_a_tensor_too_many(fails: Fails, small: Arrays) -> None:
    small["backblock1.conv3.norm.runing_mean"] = small["backblock1.conv3.norm.running_mean"]
    fails(small, r"1 of the file are not used .*runing_mean is not of this model")


def test_a_tensor_under_two_names(fails: Fails, small: Arrays) -> None:
    small["model.conv1.norm.weight"] = small["conv1.norm.weight"]
    fails(small, r"'conv1\.norm\.weight'|model\.conv1\.norm\.weight is not of this model")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("backbone.conv0.conv.weight", (2, 3, 9)), ("backbone.conv0.conv.weight", ()), ("conv1.conv.weight", (32,)),
        ("conv1.conv.weight", (4, 9, 1, 1)), ("conv1.conv.weight", (4, 8, 3, 3)), ("conv1.norm.weight", (7,)),
        ("conv1.norm.weight", (4, 1)), ("backblock0.conv6.weight", (18, 16)),
        ("backblock2.conv6.weight", (18, 9, 1, 1)),
        ("backblock0.conv6.bias", (21,)), ("backblock1.conv0.conv.weight", (6, 13, 1, 1)),
    ],
)  # fmt: skip
def test_another_shape(fails: Fails, small: Arrays, name: str, shape: tuple[int, ...]) -> None:
    small[name] = np.ones(shape, np.float32)
    fails(small, rf"tensor '{re.escape(name)}' is {re.escape(str(shape))}")


@pytest.mark.parametrize("dtype", [np.int64, np.bool_])
def test_weights_that_are_no_floating_point_numbers(fails: Fails, small: Arrays, dtype: type) -> None:
    small["conv1.norm.weight"] = small["conv1.norm.weight"].astype(dtype)
    fails(small, r"tensor 'conv1\.norm\.weight' holds (int64|bool): weights are floating-point numbers")


def narrowed(array: Array, dtype: np.dtype[np.void] | str) -> Array:
    return (array.view("<u4") >> 16).astype("<u2").view(BFLOAT16) if dtype == BFLOAT16 else array.astype(dtype)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", BFLOAT16], ids=str)
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_values_that_are_no_weights(fails: Fails, small: Arrays, dtype: str, bad: float) -> None:
    array = small["backblock1.conv3.conv.weight"]
    array[1, 0, 2, 1] = bad
    small["backblock1.conv3.conv.weight"] = narrowed(array, dtype)
    assert np.isnan(bad) or as_float32(small["backblock1.conv3.conv.weight"])[1, 0, 2, 1] == bad
    fails(small, r"tensor 'backblock1\.conv3\.conv\.weight' is -?(nan|inf) at \(1, 0, 2, 1\)")


def test_a_negative_variance(fails: Fails, small: Arrays) -> None:
    small["conv1.norm.running_var"][2] = -0.25
    fails(small, r"tensor 'conv1\.norm\.running_var' is -0\.25 at \(2,\)")


@pytest.mark.parametrize(
    "header",
    ["nonsense", "0 2", "0 2 5 0 0", "0 2 5 -1", "0 2 99999999999 0", "0 2 5 1e3", "0 2 5 " + "9" * 30],
)
def test_a_remark_that_is_no_header_of_darknet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], small: Arrays, header: str
) -> None:
    """Whoever made the file may have written anything there."""
    monkeypatch.chdir(tmp_path)
    safetensors.write(tmp_path / "in", small, {"darknet.header": header})
    (tmp_path / "out.weights").write_bytes(b"old")
    assert run(["convert", "in", "-o", "out.weights"]) == 1
    assert re.search(r"^error: .*(header|version)", capfd.readouterr().err)
    assert (tmp_path / "out.weights").read_bytes() == b"old"
