"""Damaged and hostile files: always an error that names the file, never code run, never memory for declared sizes."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.errors import PortdetError
from portdet_convert import convert, open_weights, sniff
from portdet_convert.files import READERS, ckpt, npz, pdparams, pickle_write, pth, safetensors
from portdet_convert.files.source import Arrays

FORMATS = sorted(READERS)
LAYOUT: dict[str, Any] = {"depths": (1, 1, 2, 1, 1), "channels": (2, 4, 4, 6, 8, 8)}
SUFFIX = {**{form: f".{form}" for form in FORMATS}, "darknet": ".weights"}


def written(folder: Path, form: str, arrays: Arrays) -> Path:
    """The small YOLOv3 in that format."""
    safetensors.write(folder / "source.safetensors", arrays)
    path = folder / f"whole{SUFFIX[form]}"
    convert(folder / "source.safetensors", path)
    return path


@pytest.mark.parametrize("form", [*FORMATS, "darknet"])
def test_truncated_anywhere(tmp_path: Path, small: Arrays, form: str) -> None:
    path = written(tmp_path, form, small)
    data = path.read_bytes()
    rng = random.Random(form)
    places = {0, 1, 7, 8, 12, 16, 20, 24, len(data) - 1, len(data) - 4, len(data) - 17}
    places |= {rng.randrange(len(data)) for _ in range(60)} | {rng.randrange(400) for _ in range(40)}
    damaged, out = tmp_path / "cut", tmp_path / "out.safetensors"
    for place in sorted(places):
        damaged.write_bytes(data[:place])
        with pytest.raises(PortdetError, match="cut"):
            convert(damaged, out, **LAYOUT)
        assert not out.exists(), place


@pytest.mark.parametrize("form", [*FORMATS, "darknet"])
@pytest.mark.parametrize("extra", [b"\0", b"abcd", b"\0" * 64], ids=["1", "4", "64"])
def test_extra_bytes(tmp_path: Path, small: Arrays, form: str, extra: bytes) -> None:
    path = written(tmp_path, form, small)
    path.write_bytes(path.read_bytes() + extra)
    with pytest.raises(PortdetError, match="whole"):
        convert(path, tmp_path / "out.safetensors", **LAYOUT)


class Evil:
    """Pickles as a call of os.system."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ran",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["pdparams", "zip", "legacy"])
def test_a_pickle_that_would_run_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    attack = pickle.dumps({"w": np.ones(3), "x": Evil()}, protocol)
    if kind == "zip":
        with zipfile.ZipFile("evil", "w") as archive:
            archive.writestr("archive/data.pkl", attack)
    else:
        Path("evil").write_bytes(attack if kind == "pdparams" else pth.MAGIC + pickle.dumps(1001, 2) + attack)
    with pytest.raises(PortdetError, match=r"evil, byte \d+: refused: the pickle calls (posix|nt)\.system"):
        open_weights("evil")
    assert not Path("ran").exists()
    pickle.loads(attack)  # the attack is a real one
    assert Path("ran").exists()


def test_pickled_objects_inside_arrays(tmp_path: Path) -> None:
    objects = np.array([Evil()], dtype=object)
    (tmp_path / "o.pdparams").write_bytes(pickle.dumps({"w": objects}, 4))
    np.savez(tmp_path / "o.npz", w=objects)
    for file in ("o.pdparams", "o.npz"):
        with pytest.raises(PortdetError, match=file):
            open_weights(tmp_path / file)


def huge(form: str, path: Path) -> None:
    """A file of a few hundred bytes that declares a tensor of 4 TB."""
    shape = (1 << 20, 1 << 20)
    if form == "ckpt":
        number = ckpt._number(1 << 20)
        tensor = b"\x08" + number + b"\x08" + number + b"\x12\x07Float32\x1a" + ckpt._number(4 << 40)
        value = b"\x0a\x01w\x12" + ckpt._number(len(tensor) + (4 << 40)) + tensor
        path.write_bytes(b"\x0a" + ckpt._number(len(value) + (4 << 40)) + value)
    elif form == "safetensors":
        head = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 << 40]}}).encode()
        path.write_bytes(struct.pack("<Q", len(head)) + head)
    elif form == "npz":
        member = io.BytesIO()
        form_: Any = np.lib.format
        form_.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("w.npy", member.getvalue())
    elif form == "pdparams":
        head = pdparams._head(np.broadcast_to(np.float32(0), shape))
        start = b"\x80\x04}(" + pickle_write.text("w") + head
        path.write_bytes(start + b"\x8e" + struct.pack("<Q", 4 << 40) + b"0123tbu.")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pth._pickle({"w": np.broadcast_to(np.float32(0), shape)}))
            archive.writestr("archive/data/0", b"0123")


@pytest.mark.parametrize("form", FORMATS)
def test_a_declared_size_of_terabytes_takes_no_memory(tmp_path: Path, form: str) -> None:
    path = tmp_path / "huge"
    huge(form, path)
    tracemalloc.start()
    with pytest.raises(PortdetError, match="huge"):
        open_weights(path)
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_an_expanded_torch_tensor_is_not_blown_up(tmp_path: Path) -> None:
    """Size (2^20, 2^20) with stride (0, 0) over one value is legal for torch and 4 TB for whoever copies it."""
    plain = pth._pickle({"w": np.zeros((2, 3), np.float32)})
    i = pickle_write.integer
    sizes = pickle_write.tuple_([i(2), i(3)]) + pickle_write.tuple_([i(3), i(1)])
    assert sizes in plain
    wide = pickle_write.tuple_([i(1 << 20)] * 2) + pickle_write.tuple_([i(0)] * 2)
    with zipfile.ZipFile(tmp_path / "wide", "w") as archive:
        archive.writestr("archive/data.pkl", plain.replace(sizes, wide))
        archive.writestr("archive/data/0", bytes(24))
    with pytest.raises(PortdetError, match=r"tensor 'w' and those before it unpack to \d+ bytes"):
        open_weights(tmp_path / "wide")


@pytest.mark.parametrize(("member", "size"), [("w.npy", 420), ("archive/data.pkl", 1)])
def test_zip_bombs(tmp_path: Path, member: str, size: int) -> None:
    bomb = zipfile.ZipFile(tmp_path / "bomb", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with bomb, bomb.open(member, "w") as out:
        for _ in range(size):
            out.write(bytes(1 << 20))
    with pytest.raises(PortdetError, match=r"refused as a zip bomb|is compressed"):
        open_weights(tmp_path / "bomb")


def test_nested_references_do_not_explode(tmp_path: Path) -> None:
    table: Any = {"w": np.ones(1)}
    for _ in range(14):
        table = {str(i): table for i in range(10)}  # 10^14 paths, 14 objects
    (tmp_path / "laughs").write_bytes(pickle.dumps(table, 4))
    with pytest.raises(PortdetError, match="laughs"):
        open_weights(tmp_path / "laughs")
    table = {"w": np.ones(1)}
    table["self"] = table
    (tmp_path / "loop").write_bytes(pickle.dumps(table, 4))
    with pytest.raises(PortdetError, match="nested more than 16 deep"):
        open_weights(tmp_path / "loop")


def test_names_that_occur_twice(tmp_path: Path) -> None:
    ckpt.write(tmp_path / "one", {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)})
    (tmp_path / "two").write_bytes((tmp_path / "one").read_bytes() * 2)
    with pytest.raises(PortdetError, match="'a' occurs twice"):
        open_weights(tmp_path / "two")
    head = (
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    )
    (tmp_path / "st").write_bytes(struct.pack("<Q", len(head)) + head + bytes(4))
    with pytest.raises(PortdetError, match="'a' occurs twice"):
        open_weights(tmp_path / "st")


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("these are not weights, but a page of HTML")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    cases = {"pipe": "regular file", "empty": "is empty", "text": "it begins 74 68", "absent": "No such"}
    for name, what in {**cases, "link": "No such", ".": "regular file"}.items():
        with pytest.raises(PortdetError, match=what):
            sniff(tmp_path / name)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_weights(tmp_path: Path, small: Arrays, bad: float) -> None:
    small["backblock1.conv3.conv.weight"][1, 0, 2, 1] = bad
    safetensors.write(tmp_path / "bad", small)
    with pytest.raises(PortdetError, match=r"'backblock1\.conv3\.conv\.weight' is -?(nan|inf) at \(1, 0, 2, 1\)"):
        convert(tmp_path / "bad", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()
    convert(tmp_path / "bad", tmp_path / "out.pth", allow_nan=True)


def test_a_negative_variance_shows_that_a_file_was_read_in_the_wrong_order(tmp_path: Path, small: Arrays) -> None:
    small["conv1.norm.running_var"][2] = -0.25
    safetensors.write(tmp_path / "bad", small)
    with pytest.raises(PortdetError, match=r"'conv1\.norm\.running_var' is -0\.25 at \(2,\)"):
        convert(tmp_path / "bad", tmp_path / "out.pth")


def test_witnesses_read_npz_and_safetensors(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    arrays = {"a": np.arange(6.0).reshape(2, 3).T, "b": np.array(3, np.int64), "x/y": np.ones(2, np.float16)}
    npz.write(tmp_path / "a.npz", arrays)
    safetensors.write(tmp_path / "a.safetensors", arrays, {"note": "x"})
    with np.load(tmp_path / "a.npz") as found:
        assert all(np.array_equal(found[name], array) for name, array in arrays.items())
    assert all(np.array_equal(found, arrays[name]) for name, found in load_file(tmp_path / "a.safetensors").items())
    assert safetensors.read(tmp_path / "a.safetensors")[1] == {"note": "x"}
    np.savez_compressed(tmp_path / "c.npz", **arrays)
    assert all(np.array_equal(open_weights(tmp_path / "c.npz").arrays[name], array) for name, array in arrays.items())
