"""`portdet weights show` and `portdet weights diff`."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import save_file

from portdet.cli.__main__ import run as portdet
from portdet_convert import convert
from portdet_convert.compare import Gap, gap, statistics, unlike
from portdet_convert.files import WRITERS, safetensors
from portdet_convert.files.source import BFLOAT16, Array, Arrays
from portdet_convert.weights_command import weights

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: CliRunner().invoke(weights, words, catch_exceptions=False)


def line_of(done: Result, name: str) -> list[str]:
    """The cells of a tensor's row."""
    line = next(line for line in done.output.splitlines() if line.startswith(f"│ {name} "))
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_show(run: Run) -> None:
    arrays: Arrays = {
        "a.weight": np.array([[1, 2], [3, 6]], np.float32),
        "a.bias": np.array([np.nan, 4, np.inf, -np.inf, np.nan], np.float32),
        "a.running_mean": np.zeros(3, np.float16),
        "count": np.array(7),
    }
    safetensors.write("w.safetensors", arrays, {"made": "here"})
    done = run("show", "w.safetensors")
    assert done.exit_code == 0
    # by hand: mean 3, squares of the deviations 4 + 1 + 0 + 9
    assert line_of(done, "a.weight")[1:-1] == ["(2, 2)", "float32", "3", "1.871", "1", "6", "0", "0"]
    assert line_of(done, "a.bias")[3:-1] == ["4", "0", "4", "4", "2", "2"]
    assert (
        "4 tensors, 13 values, of these 9 parameters (no statistics, no counters), 50 bytes, made here" in done.output
    )
    assert "1 tensors hold NaN or infinities, first 'a.bias'" in done.output


def test_names_that_look_like_markup(run: Run) -> None:
    for file, value in (("v.safetensors", 1), ("w.safetensors", 2)):
        save_file({"a[red].b": f4(value), "[/bold]": f4(0)}, file)
    assert line_of(run("show", "w.safetensors"), "a[red].b")[3] == "2"
    assert line_of(run("show", "w.safetensors"), "[/bold]")[3] == "0"
    assert line_of(run("diff", "v.safetensors", "w.safetensors"), "a[red].b")[1] == "values"


STEERING = {
    ":car:": ":car:",
    "a\u202eb": "a\\u202eb",
    "x\u2028y": "x\\u2028y",
    "n\xa0b": "n\\xa0b",
    "[b]z[/b]": "[b]z[/b]",
}


def test_names_that_would_steer_a_terminal_are_spelled_out(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    """Emoji codes, markup, other directions and line separators, in every table and line of every command."""
    safetensors.write("v.safetensors", {name: f4(1, 2) for name in STEERING})
    safetensors.write("w.safetensors", {name: f4(3, np.nan) for name in STEERING}, {"[b]key[/b]": "a\u202eb:car:"})
    for words in (
        ["weights", "show", "w.safetensors"], ["weights", "diff", "v.safetensors", "w.safetensors"],
        ["convert", "v.safetensors", "-o", "out.npz", "-v"],
    ):  # fmt: skip
        portdet(words)
        said = capfd.readouterr().out
        assert all(line.isprintable() for line in said.splitlines())
        assert all(shown in said for shown in STEERING.values()), said
    portdet(["weights", "show", "w.safetensors"])
    assert "[b]key[/b] a\\u202eb:car:" in capfd.readouterr().out
    assert portdet(["convert", "w.safetensors", "-o", "out.npz"]) == 1
    assert "tensor ':car:' is nan" in capfd.readouterr().err


def test_show_as_json(run: Run) -> None:
    safetensors.write("w.safetensors", {"a": np.array([1, np.nan], np.float32), "b": np.full(2, np.nan, np.float32)})
    found = json.loads(run("show", "w.safetensors", "--json").output, parse_constant=pytest.fail)
    assert {key: found[key] for key in ("file", "format", "values", "bytes")} == {
        "file": "w.safetensors", "format": "safetensors", "values": 4, "bytes": 16,
    }  # fmt: skip
    a, b = found["tensors"]
    assert (a["name"], a["shape"], a["dtype"], a["mean"], a["nan"], a["infinite"]) == ("a", [2], "float32", 1.0, 1, 0)
    assert (b["mean"], b["least"], b["nan"]) == (None, None, 2)


@pytest.mark.parametrize("form", sorted(WRITERS))
def test_show_of_every_format(run: Run, form: str) -> None:
    WRITERS[form]("w", {"layer.weight": np.arange(6, dtype=np.float32).reshape(2, 3)})
    done = run("show", "w")
    assert line_of(done, "layer.weight")[1:7] == ["(2, 3)", "float32", "2.5", "1.708", "0", "5"]
    assert f"w: {form}, 1 tensors, 6 values" in done.output


def test_show_of_the_published_size_in_little_memory(run: Run) -> None:
    """darknet's yolov3.weights has 62,001,757 values; 61,949,149 parameters are the published count."""
    with Path("yolov3.weights").open("wb") as file:  # zeros that take no room on the disk
        file.write(np.array([0, 2, 0, 0, 0], "<i4").tobytes())
        file.truncate(20 + 4 * 62_001_757)
    tracemalloc.start()
    done = run("show", "yolov3.weights")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "366 tensors, 62,001,757 values, of these 61,949,149 parameters" in done.output
    assert peak < 16 << 20, f"{peak} bytes for a file of 248 MB"


@pytest.mark.parametrize("dtype", ["f4", "f2", "f8", "i8", "u1", "?", "bfloat16"])
def test_statistics_against_numpy(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portdet_convert.compare._PIECE", 7)
    values = np.random.default_rng(2).integers(0, 2 if dtype == "?" else 100, (5, 6)).T
    bits = (values.astype("f4").view("u4") >> 16).astype("u2")  # exact: the numbers are small
    found = statistics(bits.view(BFLOAT16) if dtype == "bfloat16" else values.astype(dtype))
    assert found is not None
    assert (found.mean, found.std) == pytest.approx((values.mean(), values.std()))
    assert (found.least, found.greatest, found.nan, found.infinite) == (values.min(), values.max(), 0, 0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [(1e300, -1e300, 3e300), (1.7e308, 1.7e308), (1e200, 1.0), (1e-200, 3e-200)])
def test_statistics_of_values_whose_squares_are_none(values: tuple[float, ...]) -> None:
    """Against exact fractions. A mutated file had such values, and numpy's warning of an overflow was printed."""
    found, exact = statistics(np.array(values)), [Fraction(value) for value in values]
    mean = sum(exact, Fraction(0)) / len(exact)
    deviation = max([abs(value - mean) for value in exact])  # of which the standard deviation is a share
    share = math.sqrt(sum([float((value - mean) / (deviation or 1)) ** 2 for value in exact]) / len(exact))
    assert found is not None
    assert found.mean == pytest.approx(float(mean))
    assert found.std == pytest.approx(float(deviation) * share, abs=1e-210)
    assert (found.least, found.greatest) == (min(values), max(values))
    assert gap(np.array(values), -np.array(values)) is not None


def f4(*values: float) -> Array:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("a", "b", "want"),
    [
        (f4(1, 2, 3, 4), f4(1, 2, 3, 4), None),
        (f4(1, 2, 3.5, 4), f4(1, 2.25, 3, 5), Gap(3, 1.0, 0.2, (3,))),
        (f4(0.0), f4(-0.0), Gap(1, 0.0, 0.0, (0,))),  # another bit, the same value
        (f4(np.nan, 1), f4(np.nan, 1), None),
        (f4(np.nan, 1), f4(2, 1), Gap(1, np.inf, np.inf, (0,))),
        (f4(np.inf, 1), f4(np.inf, 2), Gap(1, 1.0, 0.5, (1,))),
        (f4(1, 2), np.array([1, 2], np.float16), Gap(0, 0.0, 0.0, ())),  # the dtype differs
        (f4(1, 2).astype("f8"), f4(1, 2).astype(">f8"), None),
        (np.array([1, 1 + 2**-40]), np.array([1.0, 1.0]), Gap(1, 2**-40, 2**-40, (1,))),  # lost in float32
        (np.arange(6.0).reshape(2, 3).T, np.array([[0, 3], [1, 4], [2, 6.0]]), Gap(1, 1.0, 1 / 6, (2, 1))),
    ],
)
@pytest.mark.parametrize("piece", [2, 1 << 18])
def test_gap(a: Array, b: Array, want: Gap | None, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portdet_convert.compare._PIECE", piece)
    assert gap(a, b) == want


def test_gap_with_a_tolerance() -> None:
    assert gap(f4(1, 2), f4(1, 2.25), atol=0.25) is None
    assert gap(f4(1, 2), f4(1, 2.25), rtol=0.1) == Gap(1, 0.25, 0.25 / 2.25, (1,))
    assert gap(f4(1, 2), np.array([1, 2], np.float16), atol=1e-9) is None


def test_unlike() -> None:
    ours = {"a": f4(1), "b": f4(2), "c": f4(3), "half": np.array([0x3F80], "u2").view(BFLOAT16)}
    theirs = {"a": f4(1), "b": f4(2)[None], "d": f4(0), "half": f4(1)}
    assert unlike(ours, ours) == []
    assert unlike(theirs, ours) == ["d", "b", "c"]


def test_diff_of_the_same_weights_in_two_formats(run: Run, small: Arrays) -> None:
    safetensors.write("a.safetensors", small)
    convert("a.safetensors", "b.pdparams")
    done = run("diff", "a.safetensors", "b.pdparams")
    assert (done.exit_code, done.output) == (0, f"0 of {len(small)} tensors differ\n")


def test_diff(run: Run, small: Arrays) -> None:
    safetensors.write("a.safetensors", small)
    convert("a.safetensors", "b.pdparams")
    small["conv2.norm.bias"] = np.nextafter(small["conv2.norm.bias"], np.float32(9))
    small["backblock0.conv2.conv.weight"][3, 1, 0, 0] += 0.5
    safetensors.write("c.safetensors", dict(reversed(small.items())))
    done = run("diff", "b.pdparams", "c.safetensors")
    assert done.exit_code == 1
    name = "backblock0.conv2.conv.weight"
    assert f"2 of {len(small)} tensors differ; the largest difference is 0.5, in {name}\n" in done.output
    cells = line_of(done, name)
    assert cells[1:4] == ["values", f"1 of {small[name].size}", "0.5"]
    assert float(cells[4]) == pytest.approx(0.5 / np.abs(small[name]).max(), rel=0.05)
    assert cells[5] == "(3, 1, 0, 0)"
    assert done.output.index(f"│ {name}") < done.output.index("│ conv2.norm.bias"), "not in the network's order"
    done = run("diff", "b.pdparams", "c.safetensors", "--atol", "1e-3")
    assert f"1 of {len(small)} tensors differ" in done.output
    assert run("diff", "b.pdparams", "c.safetensors", "--atol", "0.6").exit_code == 0


def test_diff_names_what_only_one_file_has(run: Run, small: Arrays) -> None:
    backbone = {name: array for name, array in small.items() if name.startswith("backbone.")}
    save_file({**backbone, "conv2.norm.num_batches_tracked": np.array(3)}, "a.safetensors")
    save_file({**small, "extra.weight": np.ones(1, np.float32)}, "b.safetensors")
    done = run("diff", "a.safetensors", "b.safetensors")
    assert done.exit_code == 1
    assert line_of(done, "extra.weight")[1] == line_of(done, "conv1.conv.weight")[1] == "only in the second file"
    differ = len(small) - len(backbone) + 1
    assert f"{differ} of {len(small) + 1} tensors differ; 1 skipped that are no weights\n" in done.output


def test_diff_of_an_unknown_model(run: Run) -> None:
    save_file({"x": f4(1), "y": f4(2)}, "a.safetensors")
    save_file({"x": f4(1), "y": f4(2, 2)}, "b.safetensors")
    done = run("diff", "a.safetensors", "b.safetensors")
    assert done.exit_code == 1
    assert line_of(done, "y")[1] == "shape (1,) and (2,)"
    assert "1 of 2 tensors differ; compared by the names in the files, which are of no known model" in done.output


def test_diff_of_a_file_that_cannot_be_read(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    save_file({"x": f4(1)}, "a.safetensors")
    assert portdet(["weights", "diff", "a.safetensors", "absent"]) == 3
    assert "error: absent: cannot be read: No such file" in capfd.readouterr().err
