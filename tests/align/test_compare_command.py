"""`portdet compare` on dumps made by hand: what it prints, its exit codes, its JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from portdet.align.compare import DumpWriter
from portdet.cli.__main__ import run


def dumped(path: Path, seed: int, noise: float = 1e-6, **off: float) -> str:
    random = np.random.RandomState(seed)
    with DumpWriter(path) as out:
        for name in ("forward/stem", "forward/head", "grad/head.bias"):
            factor = 1 + noise * random.uniform(-1, 1, 40) + off.get(name.rpartition("/")[2], 0.0)
            out.put(name, factor.astype(np.float32))
    return str(path)


@pytest.fixture
def ours(tmp_path: Path) -> list[str]:
    for seed in range(8):
        (tmp_path / "selves").mkdir(exist_ok=True)
        dumped(tmp_path / "selves" / f"{seed}.safetensors", seed + 1)
    return ["compare", dumped(tmp_path / "ours.safetensors", 0, 0.0), "--self", str(tmp_path / "selves")]


def test_exit_codes_and_words(ours: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = dumped(tmp_path / "good", 30), dumped(tmp_path / "bad", 31, head=1e-3)
    assert run([*ours, good]) == 0
    assert "The same: all 3 tensors within 10 times the self-noise" in capsys.readouterr().out
    assert run([*ours, bad, "--json", str(tmp_path / "found.json")]) == 1
    said = capsys.readouterr().out
    assert "Different, first in forward/head: it lies apart by 1.0e-03" in said
    assert "by level; 8 self-runs" in said
    assert json.loads((tmp_path / "found.json").read_text())["first"] == "forward/head"
    assert run([*ours[:2], good]) == 2
    assert "Undecided" in capsys.readouterr().out
    assert run([*ours, good, bad, dumped(tmp_path / "too", 32)]) == 0, "the median of three"
    assert run([*ours, good, "--float64", ours[1]]) == 0
    assert "error of reference" in capsys.readouterr().out


def test_errors(ours: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = dumped(tmp_path / "good", 30)
    (tmp_path / "text").write_text("no dump")
    (tmp_path / "empty").mkdir()
    for words, said in (
        ([*ours[:2], str(tmp_path / "absent")], "cannot read"),
        ([*ours[:2], str(tmp_path / "text")], "not a safetensors file"),
        ([*ours[:2], good, "--self", str(tmp_path / "empty")], "no dumps in"),
    ):
        assert run(words) == 3
        assert said in capsys.readouterr().err


def other_names(path: Path, noise: float = 1e-6) -> str:
    """The same three tensors under another program's names, and one of its own."""
    random = np.random.RandomState(40)
    with DumpWriter(path) as out:
        for name in ("forward/conv1", "forward/cls", "forward/extra", "grad/cls.b"):
            shape = (7,) if name == "forward/extra" else (40,)
            out.put(name, (1 + noise * random.uniform(-1, 1, shape)).astype(np.float32))
    return str(path)


def test_names_are_guessed_read_and_taken(ours: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs, names = other_names(tmp_path / "theirs"), tmp_path / "names.yaml"
    assert run([*ours, theirs]) == 1
    assert run([*ours, theirs, "--guess-names", str(names)]) == 0
    assert "3 names guessed from order and shapes, 0 of the reference's tensors and 1 of" in capsys.readouterr().out
    assert names.read_text().splitlines() == [
        "forward/conv1: forward/stem", "forward/cls: forward/head", "grad/cls.b: grad/head.bias",
    ]  # fmt: skip
    assert run([*ours, theirs, "--rename", str(names)]) == 1
    assert "forward/extra: is in the other program alone" in capsys.readouterr().out
    assert run([*ours, theirs, "--rename", str(names), "--shared"]) == 0
    said = capsys.readouterr().out
    assert "compared: 3 tensors; left out, since not all have them: 1" in said
    assert "The same: all 3 tensors" in said
    names.write_text("forward/conv1: forward/head\nforward/cls: forward/stem\n")
    assert run([*ours, other_names(tmp_path / "worse", 1e-3), "--rename", str(names), "--shared"]) == 1
    assert "compared: 2 tensors; left out, since not all have them: 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1]", "no table of names"),
        ("3", "no table of names"),
        ("a: b: c", "valid YAML"),
        (None, "--guess-names"),
    ],
)
def test_a_wrong_table_of_names_is_explained(
    text: str | None, said: str, ours: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tmp_path / "names.yaml"
    if text is not None:
        names.write_text(text)
    assert run([*ours, dumped(tmp_path / "good", 30), "--rename", str(names)]) == 3
    assert said in capsys.readouterr().err
