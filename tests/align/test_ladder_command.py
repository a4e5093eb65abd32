"""`portdet align --level`: what is asked for becomes a plan; errors before any folder is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from portdet.align.ladder import beside
from portdet.align.ladder.outcome import LEVELS
from portdet.align.ladder.plan import Plan
from portdet.align.published import read_reference
from portdet.cli.__main__ import run
from portdet.errors import PortdetError
from portdet.processes import cores
from portdet.report.ladder_data import LadderReport
from tests.align.ladder_fakes import Fakes

CONFIG = ["yolov3_scenes", "imgsz=64", "train_count=8", "val_count=4", "batch=4", "model.width=0.0625", "workers=0"]


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    made = Fakes()
    made.install(monkeypatch.setattr)
    return made


def align(folder: Path, *words: str) -> int:
    return run(["align", *CONFIG, *words, f"project={folder}"])


def test_levels_become_a_plan_and_a_table(fakes: Fakes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        align(tmp_path, "--level", "grad,ops", "--level", "step", "--backends", "torch,paddle", "--margin", "0.2") == 0
    )
    folder = tmp_path / "align" / "yolov3_scenes"
    plan = Plan.load(folder)
    assert (plan.levels, plan.backends, plan.reference) == (("ops", "grad", "step"), ("torch", "paddle"), "torch")
    assert (plan.margin, plan.seeds, plan.weights) == (0.2, 1, "")
    assert plan.configuration("paddle").data.imgsz == 64
    out = capsys.readouterr().out
    assert "Equivalent. torch, paddle: nothing differs beyond noise in 10 checks (ops, grad, step" in out
    assert out.index("Equivalent.") < out.index("│ level") if "│ level" in out else "level" in out
    assert f"report: {folder / 'align.html'}" in out
    command = json.loads((folder / "align.json").read_text())["command"]
    assert command.startswith("portdet align yolov3_scenes --backends torch,paddle --level grad,ops,step --margin 0.2")


def test_all_is_all(fakes: Fakes, tmp_path: Path) -> None:
    assert align(tmp_path, "--level", "all", "--seeds", "3", "--reference", "paddle", "--backends", "torch,paddle") == 0
    plan = Plan.load(tmp_path / "align" / "yolov3_scenes")
    assert (plan.levels, plan.seeds, plan.reference) == (LEVELS, 3, "paddle")
    assert ("grad", "torch") in fakes.asked
    assert ("grad", "paddle") not in fakes.asked


def test_parallel_takes_half_of_the_cores_for_each(
    fakes: Fakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "MODULE", "tests.align.beside_fakes")
    monkeypatch.setattr(cores, "cores", lambda: 12)
    words = ["--level", "ops,grad", "--backends", "torch,paddle", "--parallel"]
    assert align(tmp_path, *words) == 3  # the fakes beside ask for faults, which this plan lacks
    assert align(tmp_path, *words, "train.threads=5", "name=five") == 3
    for name, threads in (("yolov3_scenes", 6), ("five", 5)):
        plan = Plan.load(tmp_path / "align" / name)
        assert plan.parallel
        assert plan.configuration("paddle").train.threads == threads


def test_points_and_self_runs(fakes: Fakes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--level", "steps", "--backends", "torch,paddle", "--points", "20,3", "--self-runs", "8"]
    assert align(tmp_path, *words) == 0
    plan = Plan.load(tmp_path / "align" / "yolov3_scenes")
    assert (plan.points, plan.self_runs) == ((0, 3, 20), 8)
    assert "--self-runs 8 --points 20,3" in plan.extra["command"]
    for wrong in ("1,x", "-1", "0,,2"):
        assert align(tmp_path, "--level", "steps", "--points", wrong) == 3
        assert f"--points '{wrong}' are no training steps" in capsys.readouterr().err
    for unused in (["--points", "0,2"], ["--self-runs", "8", "--level", "ops"]):
        assert align(tmp_path / "unused", *unused, "--backends", "torch,paddle") == 3
        assert "--points and --self-runs are for levels with calibrated" in capsys.readouterr().err
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize("levels", ["train", "ops,ranks", "grad"])
def test_parallel_needs_two_kinds_of_levels(
    levels: str, fakes: Fakes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert align(tmp_path, "--level", levels, "--backends", "torch,paddle", "--parallel") == 3
    assert f"asked is only {levels.replace(',', ', ')}" in capsys.readouterr().err
    assert not (tmp_path / "align").exists()


@pytest.mark.parametrize(("fault", "code"), [("noise", 0), ("different", 1), ("unjudged", 2), ("dies", 3)])
def test_exit_codes(fakes: Fakes, tmp_path: Path, fault: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    fakes.faults["loss", "paddle"] = fault
    assert align(tmp_path, "--level", "ops,loss", "--backends", "torch,paddle") == code
    captured = capsys.readouterr()
    assert ("paddle could not run to the end at level loss" in captured.err) == (code == 3)
    assert ("goodbye" in captured.err) == (code == 3)


def test_resume_adds_levels_to_the_folders_plan(
    fakes: Fakes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    align(tmp_path, "--level", "ops", "--backends", "torch,paddle")
    fakes.asked.clear()
    folder = str(tmp_path / "align" / "yolov3_scenes")
    assert run(["align", "--resume", folder, "--level", "ranks"]) == 0
    assert fakes.asked == [("ranks", "torch"), ("ranks", "paddle")]
    assert run(["align", "--resume", folder]) == 0
    assert Plan.load(Path(folder)).levels == ("ops", "ranks")
    capsys.readouterr()
    assert run(["align", "--resume", folder, "--seeds", "2"]) == 3
    assert "--resume goes on with the plan" in capsys.readouterr().err
    assert run(["align", "--resume", folder, "epochs=2"]) == 3
    assert run(["align", "--resume", str(tmp_path)]) == 3
    assert "plan.json: cannot be read: No such file or directory\n  -> name a folder of `portdet align" in (
        capsys.readouterr().err
    )


def test_a_ladder_that_trained_is_a_reference_for_other_runs(fakes: Fakes, tmp_path: Path) -> None:
    align(tmp_path, "--level", "ops,train", "--backends", "torch,paddle")
    curves = read_reference(str(tmp_path / "align" / "yolov3_scenes")).curves
    assert {name: rows[0]["AP50"] for name, rows in curves.items()} == {"torch": 0.2, "paddle": 0.2}
    align(tmp_path, "--level", "ops", "name=other")
    with pytest.raises(PortdetError, match="this ladder trained nothing"):
        read_reference(str(tmp_path / "align" / "other"))


def test_published_curves_are_one_more_outcome(fakes: Fakes, tmp_path: Path) -> None:
    (tmp_path / "curves.yaml").write_text(
        "title: others\nsource: s\ntrained: t\nepochs: [1]\nspread: {AP: {1: 0.01}}\ncurves: {a: {AP: [0.5]}}\n"
    )
    words = ("--level", "train", "--backends", "torch,paddle", "--against", str(tmp_path / "curves.yaml"), "epochs=1")
    assert align(tmp_path, *words) == 1
    report = LadderReport.from_json((tmp_path / "align" / "yolov3_scenes" / "align.json").read_text())
    found = report.of("train", "published curves")
    assert found is not None
    assert found.passed is False
    assert "0.390 below the allowed" in found.words


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--level", "grads"], "unknown level 'grads'\n  -> did you mean 'grad'?"),
        (["--level", "grad", "--backends", "torch,padle"], "unknown backend 'padle'"),
        (["--level", "grad", "--backends", "torch"], "level grad compares backends, and only torch is named"),
        (["--level", "grad", "--reference", "torsh"], "unknown backend 'torsh'"),
        (["--level", "ops", "--against", "ppyolo_voc2012"], "--against compares trainings"),
        (["--level", "ops", "--backends", ","], "no backend is named"),
        (["--level", "ops", "model.width=-1"], "width"),
        (["--level", "ops", "batsh=3"], "batsh"),
    ],
)
def test_errors_come_before_any_folder(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert align(tmp_path, *words) == 3
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_words_there_is_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["align"]) == 3
    assert "name a configuration, run folders, or --resume FOLDER" in capsys.readouterr().err


def test_pretrained_weights_are_completed_once_for_all(fakes: Fakes, tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    assert align(tmp_path, "--level", "ops") == 0
    from portdet.align.ladder.case import case_of

    case = case_of(Plan.load(tmp_path / "align" / "yolov3_scenes").configuration("torch"))
    given = {name: np.full_like(array, 0.5) for name, array in case.initial.items()}
    save_file(given, tmp_path / "given.safetensors")
    assert align(tmp_path, "--level", "ops", f"pretrained={tmp_path / 'given.safetensors'}", "name=two") == 0
    plan = Plan.load(tmp_path / "align" / "two")
    held = load_file(plan.weights)
    assert held.keys() == given.keys()
    assert all(held[name].tobytes() == given[name].tobytes() for name in given)
