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
