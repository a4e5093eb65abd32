"""Every pair of formats, there and back: bit-identical, and darknet's files byte for byte."""

from __future__ import annotations

import struct
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from portdet_convert import convert, load_canonical, open_weights, sniff, yolov3
from portdet_convert.files import FORMATS, darknet, safetensors
from portdet_convert.files.source import BFLOAT16, Array, Arrays

PAIRS = list(permutations(FORMATS, 2))


def bits(arrays: Arrays) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (str(array.dtype), array.shape, array.tobytes()) for name, array in arrays.items()}


def of(path: Path, cfg: Path) -> Arrays:
    """The tensors of a file under its own names; a darknet file's under canonical ones."""
    from portdet_convert.yolov3_cfg import order

    return open_weights(path, order(path, cfg)).arrays


@pytest.mark.parametrize(("one", "other"), PAIRS)
@pytest.mark.parametrize("file", ["yolov3_thin8.weights", "thin8.conv.74.oldheader"])
def test_thin_yolov3(oracles: Path, tmp_path: Path, file: str, one: str, other: str) -> None:
    """darknet's own file in `one` format, converted to the `other`, and back: the same file, to the byte."""
    folder = oracles / "darknet_yolov3_thin8"
    cfg = folder / "yolov3_thin8.cfg"
    convert(folder / file, tmp_path / "one", to=one, cfg=cfg)
    convert(tmp_path / "one", tmp_path / "other", to=other, cfg=cfg)
    convert(tmp_path / "other", tmp_path / "back", to=one, cfg=cfg)
    assert (sniff(tmp_path / "one"), sniff(tmp_path / "other")) == (one, other)
    assert bits(of(tmp_path / "back", cfg)) == bits(of(tmp_path / "one", cfg))
    assert (tmp_path / "back").read_bytes() == (tmp_path / "one").read_bytes()
    convert(tmp_path / "other", tmp_path / "last", to="darknet", cfg=cfg)
    assert (tmp_path / "last").read_bytes() == (folder / file).read_bytes()


def test_around_all_formats(oracles: Path, tmp_path: Path) -> None:
    folder = oracles / "darknet_yolov3_thin8"
    path = folder / "yolov3_thin8.weights"
    for number, form in enumerate((*FORMATS, *reversed(FORMATS), "darknet")):
        convert(path, tmp_path / f"{number}.{form}", to=form, cfg=folder / "yolov3_thin8.cfg")
        path = tmp_path / f"{number}.{form}"
    assert path.read_bytes() == (folder / "yolov3_thin8.weights").read_bytes()


@pytest.mark.parametrize(("one", "other"), [pair for pair in PAIRS if "darknet" not in pair])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions(small: Arrays, tmp_path: Path, dtype: str, one: str, other: str) -> None:
    """Kept as they are, not widened; NaN payloads and subnormals included."""
    arrays = {name: cast(array, dtype) for name, array in small.items()}
    arrays["conv1.conv.weight"].reshape(-1)[:3] = np.frombuffer(
        {"float64": struct.pack("<3Q", 0x7FF0_0000_0000_0001, 1, 1 << 63)}.get(
            dtype, struct.pack("<3H", 0x7F81, 1, 1 << 15)
        ),
        arrays["conv1.conv.weight"].dtype,
    )
    safetensors.write(tmp_path / "in", arrays)
    path = tmp_path / "in"
    for step, form in enumerate((one, other, one, "safetensors")):
        convert(path, tmp_path / str(step), to=form, allow_nan=True)
        path = tmp_path / str(step)
    assert bits(safetensors.read(path)[0]) == bits(safetensors.read(tmp_path / "in")[0])


def cast(array: Array, dtype: str) -> Array:
    if dtype == "bfloat16":
        return (array.view("<u4") >> 16).astype("<u2").view(BFLOAT16)
    return array.astype(dtype)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A yolov3.weights of the published size, 248,007,048 bytes; every bit pattern but NaN and infinity may occur."""
    path = tmp_path_factory.mktemp("full") / "yolov3.weights"
    values = np.random.default_rng(3).integers(0, 0x7F80_0000, 62_001_757, dtype=np.uint32)
    path.write_bytes(struct.pack("<3iQ", 0, 2, 0, 32_013_312) + values.tobytes())
    assert path.stat().st_size == 248_007_048
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_full_yolov3(full: Path, tmp_path: Path, one: str, other: str) -> None:
    convert(full, tmp_path / "one", to=one)
    convert(tmp_path / "one", tmp_path / "other", to=other)
    (tmp_path / "one").rename(tmp_path / "first")
    convert(tmp_path / "other", tmp_path / "one", to=one)
    assert same_bytes(tmp_path / "first", tmp_path / "one")
    (tmp_path / "first").unlink()
    (tmp_path / "one").unlink()
    convert(tmp_path / "other", tmp_path / "last.weights")
    assert same_bytes(tmp_path / "last.weights", full)
    for name in ("other", "last.weights"):
        (tmp_path / name).unlink()


def same_bytes(a: Path, b: Path) -> bool:
    return np.array_equal(np.memmap(a, np.uint8, "r"), np.memmap(b, np.uint8, "r"))


@pytest.mark.slow
def test_full_yolov3_loads_as_it_is(full: Path) -> None:
    names = {name: shape for layer in yolov3.darknet_order(outputs=255) for name, shape in layer.tensors}
    arrays, _ = load_canonical(full, names)
    assert b"".join(arrays[name].tobytes() for name in names) == full.read_bytes()[20:]
    assert darknet.count(full) == sum(array.size for array in arrays.values())
