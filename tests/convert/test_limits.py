"""Files with more of everything than a model has: refused before each is looked at, or read in time linear in them.

What is counted is calls, by the interpreter itself, never seconds: twice the tensors may take twice the calls.
"""

from __future__ import annotations

import json
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.cli.__main__ import run
from portdet.errors import PortdetError
from portdet.models import load_model
from portdet_convert import convert, load_canonical, models, open_weights
from portdet_convert.files import WRITERS, ckpt, npz, safetensors, source
from portdet_convert.files.source import Arrays
from portdet_convert.rules import explain

FORMATS = sorted(WRITERS)


def calls(function: Callable[[], object]) -> int:
    """How many functions of Python and C it calls."""
    count = 0

    def profile(_frame: object, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def empty(count: int) -> Arrays:
    return {f"layer{i}.weight": np.zeros(0, np.float32) for i in range(count)}


def header(count: int) -> bytes:
    """A safetensors file of `count` empty tensors."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    text = json.dumps({f"layer{i}.weight": entry for i in range(count)}).encode()
    return struct.pack("<Q", len(text)) + text


def refused(path: str = "w") -> None:
    with pytest.raises(PortdetError):
        open_weights(path)


def pretrained() -> None:
    with pytest.raises(PortdetError):
        load_canonical("w", {"backbone.conv0.conv.weight": (1,)})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_150_000_empty_tensors_are_refused(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Before any of them is named, matched or printed: fifteen calls for each that the header's parser meets."""
    Path("many").write_bytes(header(150_000))
    for words in (["weights", "show", "many"], ["convert", "many", "-o", "w.pth"], ["weights", "diff", "many", "many"]):
        assert run(words) in (1, 3)
        assert "more than 100000 tensors" in capfd.readouterr().err
    assert calls(lambda: refused("many")) < 15 * source.MOST_TENSORS


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_has_the_limit(here: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    for module in (source, sys.modules["portdet_convert.files.pickles"]):
        monkeypatch.setattr(module, "MOST_TENSORS", 50)
    WRITERS[form](Path("good"), empty(48) if form == "pth" else empty(50))  # a zip has members besides the tensors
    WRITERS[form](Path("bad"), empty(51))
    if form != "pth":
        assert len(open_weights("good").arrays) == 50
    with pytest.raises(PortdetError, match=r"bad.*: more than 50 (tensors|members|records|entries)"):
        open_weights("bad")


def test_an_archive_of_too_many_members_is_not_even_listed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npz.write("w.npz", empty(60))
    monkeypatch.setattr(source, "MOST_TENSORS", 50)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("listed"))
    with pytest.raises(PortdetError, match="more than 50 members"):
        open_weights("w.npz")


def test_more_members_than_a_zip_without_its_64_bit_form_can_count(here: Path) -> None:
    """The count in the directory has 16 bits; the size of the directory is what it is told by."""
    with zipfile.ZipFile("w", "w") as archive:
        for i in range(65_540):
            archive.writestr(zipfile.ZipInfo(f"{i}.npy"), b"")
    assert sys.modules["portdet_convert.files.zips"]._entries(source.Source("w")) == 65_540


def remarks(count: int) -> dict[str, bytes]:
    """`count` remarks, as each format could hold them."""
    table = {"__metadata__": {str(i): "x" for i in range(count)}}
    text = json.dumps(table).encode()
    return {
        "ckpt": ckpt._prefix(1, b"\x0a\x01w\x12\x00") + ckpt._prefix(15, b"portdet:{}") * count,
        "safetensors": struct.pack("<Q", len(text)) + text,
    }


@pytest.mark.parametrize("form", ["ckpt", "safetensors"])
def test_many_remarks(here: Path, form: str) -> None:
    """Field by field, 5 million took 20 seconds. The calls do not grow with what follows the limit."""
    found = []
    for count in (3000, 30_000):
        Path("w").write_bytes(remarks(count)[form])
        found.append(calls(refused))
    assert found[1] < (found[0] + 100 if form == "ckpt" else 5 * 30_000), found
    with pytest.raises(PortdetError, match=r"field 15 of Checkpoint occurs twice|__metadata__ has 30000 entries"):
        open_weights("w")


def test_dimensions_are_counted_while_they_are_read(here: Path) -> None:
    found = []
    for count in (3000, 30_000):
        tensor = b"\x0a" + ckpt._number(count) + b"\x01" * count + b"\x12\x07Float32"
        Path("w").write_bytes(ckpt._prefix(1, b"\x0a\x01w" + ckpt._prefix(2, tensor)))
        found.append(calls(refused))
    assert abs(found[1] - found[0]) < 100, found


COMMANDS: dict[str, Callable[[], object]] = {
    "show": lambda: run(["weights", "show", "w"]),
    "show as JSON": lambda: run(["weights", "show", "w", "--json"]),
    "diff": lambda: run(["weights", "diff", "w", "v"]),
    "convert": lambda: run(["convert", "w", "-o", "out.safetensors", "--report", "r.json"]),
    "pretrained": pretrained,
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("command", COMMANDS)
def test_twice_the_tensors_take_twice_the_calls(here: Path, command: str, form: str) -> None:
    """A tensor's own calls, by the difference of 100, 300 and 500: where they grow with the others, there is a loop
    over all inside a loop over all."""
    found = []
    for count in (100, 300, 500):
        arrays = {f"layer{i}.weight": np.full(2, i, np.float32) for i in range(count)}
        WRITERS[form](Path("w"), arrays)
        WRITERS[form](Path("v"), {name: array + 1 for name, array in arrays.items()})
        COMMANDS[command]()  # what is compiled or imported once
        found.append(calls(COMMANDS[command]))
    first, second = found[1] - found[0], found[2] - found[1]
    assert first > 200, "it does nothing with the tensors"
    assert second < 1.1 * first, found


def test_names_that_are_alike_are_looked_for_among_a_thousand() -> None:
    """difflib takes 20 us for each: six names against 100,000 took 12 seconds."""
    few, many = ([f"layer{i}.weight" for i in range(count)] for count in (2000, 20_000))
    missing = ["head.weight", "head.bias", "neck.weight"]
    assert calls(lambda: explain(missing, many)) < 1.1 * calls(lambda: explain(missing, few))


def test_a_long_table_ends_and_says_so(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arrays = {f"layer{i:04}.weight": np.full(2, i, np.float32) for i in range(2003)}
    safetensors.write("w", arrays)
    safetensors.write("v", {name: array + 1 for name, array in arrays.items()})
    assert run(["weights", "show", "w"]) == 0
    out = capfd.readouterr().out
    assert "layer1999.weight" in out
    assert "layer2000.weight" not in out
    assert "the first 2000 of 2003 tensors; --json prints all" in out
    assert "w: safetensors, 2003 tensors" in out
    assert run(["weights", "diff", "w", "v"]) == 1
    out = capfd.readouterr().out
    assert "layer2000.weight" not in out
    assert "2003 of 2003 tensors differ" in out


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_the_largest_files_that_are_read(here: Path, form: str) -> None:
    """99,990 tensors through every command (a torch file counts its pickle among its members)."""
    WRITERS[form](Path("w"), empty(99_990))
    assert run(["weights", "show", "w"]) == 0
    assert run(["convert", "w", "-o", "out.npz"]) == 0
    assert run(["weights", "diff", "w", "out.npz"]) == 0
    assert len(open_weights("out.npz").arrays) == 99_990


def test_what_a_shape_says_makes_no_layers(here: Path) -> None:
    """A width of 2^40 in an empty tensor, a block number of 9999: the model that they would be of is not built."""
    huge: dict[str, Any] = {"backbone.stem3.norm.weight": np.zeros((1 << 40, 0), np.float32)}
    for i in range(30):
        huge[f"backbone.layer5.99{i:02}.conv1.conv.weight"] = np.zeros(0, np.float32)
    safetensors.write("w", huge)
    assert calls(lambda: models.expected(list(huge))) < 20_000
    assert run(["convert", "w", "-o", "out.npz"]) in (0, 1)


@pytest.mark.parametrize("name", ["backbone.stem3.norm.weight", "neck.block0.route.norm.weight", "output0.bias"])
@pytest.mark.parametrize("length", [1 << 20, 1 << 60])
def test_a_model_that_there_cannot_be(here: Path, name: str, length: int) -> None:
    """Every tensor of a PP-YOLO, empty, and one of them as long as no layer is."""
    graph = load_model({"name": "ppyolo", "variant": "r18vd", "classes": 2}, imgsz=96).graph
    arrays: Arrays = {n: np.zeros((0, *info.shape), np.float32) for n, info in graph.weights().items()}
    safetensors.write("w", {**arrays, name: np.zeros((length, 0), np.float32)})
    with pytest.raises(PortdetError, match=r"its tensors are of no PP-YOLO: |tensor '.*' is \("):
        convert("w", "out.npz")


def test_a_number_of_blocks_that_no_model_has_is_another_model(here: Path) -> None:
    safetensors.write("w", {f"backbone.res3.{i}.conv1.conv.weight": np.zeros(0, np.float32) for i in range(3000)})
    assert convert("w", "out.npz").naming == "no known"
