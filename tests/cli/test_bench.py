"""`portdet bench`: what it measures, and what it says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.bench import CONVOLUTION_FLOPS
from portdet.bench.measure import Times, _middle
from portdet.bench.table import table
from portdet.cli.__main__ import run

TINY = """
model: {name: yolov3, width: 0.0625, depths: [1, 1, 1, 1, 1]}
data: {imgsz: 64, batch: 2, max_boxes: 16, workers: 1, scene_size: 64}
ema: {kind: exponential}
train: {threads: 1}
"""


def test_a_measurement_has_equal_counts_and_plausible_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    words = ["bench", str(config), "--backend", "torch", "--steps", "5", "--synthetic", "--json", "model.classes=5"]
    assert run(words) == 0
    found = json.loads(capsys.readouterr().out)["torch"]
    assert [found[name]["count"] for name in ("portdet", "bare", "step")] == [5, 5, 5]
    for name in ("portdet", "bare", "step"):
        times = found[name]
        assert 0 < times["best"] <= times["lower_quartile"] <= times["median"] <= times["upper_quartile"] < 10
    assert 2**26 < found["rss_bytes"] < 2**34
    assert (found["device_bytes"], found["batch"], found["imgsz"]) == (0, 2, 64)
    assert 0.1 < found["convolution_gflops"] < 1e4
    assert found["session"]["device"] == "cpu"


def test_times_count_no_first_steps() -> None:
    times = Times()
    times.run(lambda: None, count=5, skip=3)
    assert times.facts()["count"] == 5


def test_convolution_is_counted_as_the_papers_do() -> None:
    assert CONVOLUTION_FLOPS == 2 * 2 * 26 * 26 * 512 * 256 * 9  # batch 2, "same" padding, 2 a multiply-accumulate


def _found(bare: float, loop: float, gflops: float = 40.0) -> dict[str, Any]:
    return {
        "batch": 2, "imgsz": 320, "ema_kind": "exponential",
        "session": {"device": "cpu", "mode": "eager", "threads": "2"},
        "bare": {"median": bare, "error": 0.003 * bare, "best": 0.5, "count": 30},
        "portdet": {"median": loop, "error": 0.004 * loop, "best": 0.51},
        "ema_share": 0.007, "ema_share_error": 0.001, "ema_alone_share": 0.0065, "rss_bytes": 2**31, "device_bytes": 0,
        "convolution_gflops": gflops,
    }  # fmt: skip


def test_the_table_gives_ratios_to_bare_and_to_torch() -> None:
    slow = _found(1.6, 1.64, gflops=1.1)
    slow["session"] = {"device": "cpu", "mode": "compiled", "threads": "4"}
    lines = table({"torch": _found(0.8, 0.82), "mindspore": slow}).splitlines()
    assert lines[0].startswith("batch 2 of 320 x 320, device cpu, EMA exponential; medians of 30 steps")
    # 1.025 times sqrt(.003^2 + .004^2) = .0051
    words = "torch eager 2 0.8 0.82 1.025 ± 0.005 1.020 0.70% ± 0.10% 0.65% 2.44 2.00 0.00 40.0 1.00 1.00"
    assert lines[2].split() == words.split()
    assert lines[3].split()[:3] == ["mindspore", "compiled", "4"], "each backend's own mode"
    assert lines[3].split()[-2:] == ["2.00", "2.00"]
    assert "mindspore: one 3x3 convolution runs at 1.10 GFLOP/s" in lines[4]
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in lines[5]


def test_ratios_of_backends_need_two_and_name_the_one_that_is_1() -> None:
    assert ":torch" in table({"torch": _found(0.8, 0.82), "paddle": _found(1.6, 1.64)})
    assert ":torch" not in table({"torch": _found(0.8, 0.82)})
    lines = table({"mindspore": _found(1.6, 1.64), "paddle": _found(0.8, 0.82)}).splitlines()
    assert lines[1].endswith("portdet :mindspore")
    assert lines[3].split()[-2:] == ["0.50", "0.50"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--backend", "torsh"], "unknown backend 'torsh'"),
        (["--backend", "torch", "--device", "Ascend"], "torch_npu, which is not installed"),
        (["--backend", "torch", "--device", "gpu"], "unknown device 'gpu' for torch"),
    ],
)
def test_what_is_not_there_is_an_error(
    words: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    assert run(["bench", str(config), "--synthetic", *words]) == 1
    assert text in capsys.readouterr().err


def test_the_error_of_a_median_is_that_of_normal_draws_and_knows_no_outliers() -> None:
    draws = np.random.default_rng(0).normal(0.015, 0.03, (2000, 30))
    errors = [_middle(list(row))[1] for row in draws]
    medians = [_middle(list(row))[0] for row in draws]
    assert np.mean(errors) == pytest.approx(np.std(medians), rel=0.15)
    disturbed = draws[0].copy()
    disturbed[3] += 10.0  # a step during which the machine did something else
    assert _middle(list(disturbed))[1] < 1.5 * errors[0]


@pytest.mark.parametrize(
    ("share", "error", "told"),
    [(-0.3921, 0.21, False), (-0.002, 0.0001, False), (0.02, 0.03, False), (0.007, 0.0034, True), (0.0, 0.0, False)],
)
def test_a_share_that_its_error_drowns_is_not_printed_as_one(share: float, error: float, told: bool) -> None:
    found = _found(0.8, 0.82) | {"ema_share": share, "ema_share_error": error}
    _, _, row, *rest = table({"torch": found}).splitlines()
    assert (f"{share:.2%} ±" in row) == told
    assert f"± {error:.2%}" in row
    said = "\n".join(rest)
    assert ("the machine is too loaded to tell" in said) != told
    assert told or f"the EMA's share of a step, {share:.2%} ± {error:.2%}, is lost in its error" in said
    assert told or "by itself its update takes 0.65% of a step" in said


def test_a_ratio_on_a_loaded_machine_says_so() -> None:
    found = _found(0.8, 0.82)
    found["portdet"]["error"] = 0.08
    lines = table({"torch": found}).splitlines()
    assert "1.025 ± 0.100" in lines[2]
    assert lines[3:] == [
        "torch: the ratio's standard error is 0.100, so it tells nothing of portdet",
        "  -> the machine is too loaded to tell: end other programs, or raise --steps",
    ]
    assert len(table({"torch": _found(0.8, 0.82)}).splitlines()) == 3


def test_the_mode_is_the_one_that_ran(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    words = ["bench", str(config), "--backend", "torch", "--steps", "5", "--synthetic", "threads=2", "ema.kind=none"]
    assert run(words) == 0
    row = capsys.readouterr().out.splitlines()[2].split()
    assert row[:3] == ["torch", "eager", "2"]
