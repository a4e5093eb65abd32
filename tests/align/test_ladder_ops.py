"""The level `ops` on real backends: what it looks at, what it leaves out, and what it says of one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from portdet.align.ladder import ops
from portdet.align.ladder.job import LadderJob
from portdet.align.ladder.outcome import Outcome
from portdet.align.ladder.plan import Plan
from portdet.align.ladder.verdict import exit_code
from portdet.config import load
from portdet.conformance.rows import Row as Line
from portdet.models import load_model
from tests.backends.harness import require
from tests.conformance.vendor_case import install

TINY = ("imgsz=64", "train_count=8", "val_count=4", "batch=4", "model.width=0.0625", "workers=0", "threads=1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    require("torch")
    install(tmp_path, monkeypatch)
    return tmp_path / "run"


def plan(folder: Path, *backends: str, config: str = "yolov3_scenes", levels: tuple[str, ...] = ("ops",)) -> Plan:
    words = (
        TINY if config == "yolov3_scenes" else ("imgsz=96", "train_count=8", "val_count=4", "workers=0", "threads=1")
    )
    return Plan(load(config, words).model_dump(mode="json"), str(folder), backends, levels)


def looked_at(backend: str, config: str = "yolov3_scenes") -> Outcome:
    return ops.outcome(plan(Path(), backend, config=config), backend, print)


def test_the_ops_of_a_model_are_those_of_its_graph() -> None:
    small = {"name": "yolov3", "classes": 3, "width": 1 / 32, "depths": (1, 1, 1, 1, 1)}
    yolov3 = set(ops.ops_of(load_model(small, imgsz=64, max_boxes=8).graph))
    assert {"leaky_relu", "upsample_nearest", "concat", "exp", "stop_gradient"} <= yolov3
    assert yolov3.isdisjoint({"max_pool2d", "softplus", "conv2d"})
    nano = {"name": "ppyolo", "variant": "nano", "classes": 3, "width": 4, "neck_width": 16}
    assert "max_pool2d" in ops.ops_of(load_model(nano, imgsz=96, max_boxes=8).graph)


def test_a_good_backend_passes_and_the_rest_is_counted() -> None:
    require("torch")
    found = looked_at("torch")
    assert found.passed
    assert found.checked > 80
    assert {row.status for row in found.rows} <= {"same", "noise"}
    assert max(row.max_rel for row in found.rows) > 1e-8
    assert found.facts["left out"].startswith("8 ops that it does not use: abs, avg_pool2d")
    assert found.facts["mode"] == "eager"


def test_a_wrong_slope_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", "slope")
    found = looked_at("broken")
    assert found.passed is False
    assert {row.name.split("_0")[0] for row in found.rows if row.guilty} == {"ops/leaky_relu"}
    assert found.first == "ops/leaky_relu_0"
    assert "first ops/leaky_relu_0: is off by" in found.words


def test_declared_failures_are_shown_with_their_reason(folder: Path) -> None:
    found = looked_at("acme", "ppyolo_scenes")
    assert found.passed
    known = {row.name: row.words for row in found.rows if row.status == "known"}
    assert list(known) == ["ops/max_pool2d_2_a gradient"]
    assert known["ops/max_pool2d_2_a gradient"].startswith("equal values share the gradient")
    assert "equal values share the gradient" in found.facts[ops.DECLARED]


def test_a_backend_that_dies_loses_nothing_of_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAULT", "dies")
    said: list[str] = []
    report = LadderJob(plan(folder, "broken", "torch"), said.append).run()
    assert exit_code(report) == 3
    torch, broken = (report.of("ops", name) for name in ("torch", "broken"))
    assert torch is not None
    assert torch.passed
    assert broken is not None
    assert "was killed by SIGSEGV" in broken.crashed
    assert "Could not run to the end: broken (ops)." in report.verdict
    assert any(line.startswith("ops, broken: could not run") for line in said)
    assert "was killed by SIGSEGV" in (folder / "junit.xml").read_text()


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        (Line("ops", "mul_0", "eager", "passed", "1.5e-08"), "noise", ""),
        (Line("ops", "mul_0", "eager", "passed"), "same", ""),
        (
            Line("ops", "mul_0", "eager", "failed", "2e-3 of the largest value, 2e-05 is allowed"),
            "different",
            "is off by",
        ),
        (Line("ops", "mul_0", "eager", "failed", "is float64, should be float32"), "broken", "is float64"),
        (Line("ops", "mul_0", "eager", "known", "no kernel"), "known", "no kernel"),
        (Line("ops", "mul_0", "eager", "passed unexpectedly", "take it out"), "doubtful", "take it out"),
    ],
)
def test_lines_of_the_checklist_as_rows(line: Line, status: str, words: str) -> None:
    row = ops.row_of(line)
    assert (row.name, row.status) == ("ops/mul_0", status)
    assert words in row.words
