"""The checklist itself: what passes on the three backends, and what it says of one that is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from portdet.cli.__main__ import run
from portdet.conformance import ops
from portdet.conformance.job import Conformance
from portdet.conformance.rows import Row, declared, near, stale
from portdet.errors import PortdetError
from tests.backends.harness import require

QUICK = [
    ("torch", "eager", "sweep"),
    ("torch", "eager", "reductions"),
    ("torch", "eager", "layers"),
    ("torch", "eager", "models"),
    ("torch", "eager", "steps"),
    ("mindspore", "compiled", "ops"),
    ("mindspore", "compiled", "layers"),
    ("mindspore", "eager", "ops"),
    ("mindspore", "compiled", "sweep"),
    ("mindspore", "compiled", "reductions"),
    ("mindspore", "eager", "sweep"),
    ("mindspore", "eager", "reductions"),
    ("paddle", "eager", "sweep"),
    ("paddle", "eager", "reductions"),
    ("paddle", "compiled", "sweep"),
    ("paddle", "compiled", "reductions"),
    ("torch", "eager", "ranks"),
    ("mindspore", "compiled", "ranks"),
    ("paddle", "eager", "ranks"),
    ("paddle", "eager", "models"),
    ("paddle", "eager", "steps"),
    ("paddle", "compiled", "ops"),
    ("paddle", "compiled", "layers"),
]
ROWS = {"ops": 130, "sweep": 91, "reductions": 113, "layers": 38, "models": 280, "steps": 150, "ranks": 7}
"""At least so many rows: a section that looks at nothing passes too. Outputs of modules are looked at eagerly only."""
COMPILED = {**ROWS, "models": 200}


def _all() -> Iterator[object]:
    """Everything; what is not quick takes up to some minutes."""
    for backend in ("torch", "mindspore", "paddle"):
        for mode in ("eager", "compiled"):
            for section in ROWS:
                case = (backend, mode, section)
                yield pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)


@pytest.mark.parametrize(("backend", "mode", "section"), [*_all()])
def test_a_backend_conforms(backend: str, mode: str, section: str) -> None:
    require(backend)
    job = Conformance(backend, modes=[mode], threads=1, sections=[section])
    rows = job.run()
    assert [(row.key, row.detail) for row in rows if not row.good] == []
    assert len(rows) >= (ROWS if mode == "eager" else COMPILED)[section]
    assert {row.section for row in rows} == {section}


@pytest.mark.parametrize("backend", ["torch", "mindspore", "paddle"])
def test_every_op_has_words(backend: str) -> None:
    """No framework is needed."""
    job = Conformance(backend, sections=["table"])
    job.run()
    assert job.passed, job.rows


def test_the_command_prints_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("torch")
    report = tmp_path / "rows.json"
    words = ["--backend", "torch", "--mode", "eager", "--section", "ops", "--threads", "1", "--json", str(report)]
    assert run(["conformance", *words]) == 0
    count = len(json.loads(report.read_text())["rows"])
    assert capsys.readouterr().out.strip() == f"torch on cpu: {count} of {count} passed"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--backend", "torsh"], "unknown backend 'torsh'"),
        (["--backend", "torch", "--section", "opps"], "unknown section 'opps'"),
        (["--backend", "torch", "--mode", "fast"], "torch has no mode 'fast'"),
    ],
)
def test_unknown_names(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["conformance", *words]) == 1
    assert text in capsys.readouterr().err


def test_a_process_that_dies_is_a_row() -> None:
    require("torch")
    job = Conformance("torch", device="cuda:77", modes=["eager"], sections=["ops"])
    rows = job.run()
    assert not job.passed
    assert [(row.outcome, row.name) for row in rows] == [("failed", "(the process)")]
    assert "cuda" in rows[0].detail


def test_slopes_that_are_wrong_are_found() -> None:
    got = ops.slopes("mul_0_a")
    assert near("ops", "mul", "eager", got, got, ops.GRADIENT, 1e-3).good
    assert not near("ops", "mul", "eager", got * 1.0001, got, ops.GRADIENT, 1e-3).good
    assert not near("ops", "mul", "eager", got * np.nan, got, ops.GRADIENT, 1e-3).good
    assert not near("ops", "mul", "eager", got[:1], got, ops.GRADIENT, 1e-3).good


def test_declared_failures_are_strict() -> None:
    rows = [Row("ops", "mish_0", "eager", "failed", "nan"), Row("ops", "relu_0", "eager", "passed")]
    known = declared(rows, {"ops/mish_*": "no kernel"})
    assert [(row.outcome, row.detail) for row in known] == [("known", "no kernel"), ("passed", "")]
    passing = declared(rows, {"ops/relu_*": "no kernel"})
    assert [row.outcome for row in passing] == ["failed", "passed unexpectedly"]
    assert "take it out" in passing[1].detail
    assert not passing[1].good
    assert stale(rows, {"ops/mish_*": "no kernel"}) == []
    assert [row.name for row in stale(rows, {"ops/gone": "no kernel"})] == ["known_failures: ops/gone"]


def test_an_unknown_section_is_an_error() -> None:
    with pytest.raises(PortdetError, match="unknown section"):
        Conformance("torch", sections=["everything"]).run()
