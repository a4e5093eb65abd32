"""A run against curves: the rule on curves made by hand, planted faults, and the command with its exit codes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from safetensors.numpy import load_file

from portdet.align.against import judge_against, meets, validated_epochs
from portdet.align.published import read_reference
from portdet.cli.__main__ import run as portdet
from portdet.config import Config, EvalConfig, TrainConfig, load
from portdet.errors import PortdetError
from portdet.report import align_page
from portdet.report.align_reference import Reference, beside
from portdet.report.align_run import AlignRun, BackendRun
from portdet.report.align_tables import against_tables, markdown

THEIRS = Reference(
    "theirs", "a log", "4 epochs",
    {"one": [{"epoch": e, "AP": ap} for e, ap in ((2, 0.40), (4, 0.50))],
     "two": [{"epoch": e, "AP": ap, "AP50": 0.7} for e, ap in ((2, 0.42), (4, 0.49))]},
    {"AP": [[2.0, 0.02], [4.0, 0.01]]},
)  # fmt: skip
UNKNOWN = Reference(THEIRS.title, THEIRS.source, THEIRS.trained, THEIRS.curves)


def judged(curve: dict[int, float], reference: Reference = THEIRS, metric: str = "AP") -> AlignRun:
    rows = [{"epoch": float(epoch), metric: value} for epoch, value in curve.items()]
    run = AlignRun("demo", "", "", [BackendRun("torch", "2", "cpu", 1.0, rows)], reference=reference)
    judge_against(run)
    return run


@pytest.mark.parametrize("curve", [{2: 0.41, 4: 0.495}, {2: 0.38, 4: 0.51}, {1: 0.9, 2: 0.44, 3: 0.0, 4: 0.48}])
def test_inside_up_to_the_edges(curve: dict[int, float]) -> None:
    run = judged(curve)
    assert run.passed is True
    assert run.verdict.startswith("Inside the spread of theirs: inside at all 2 common epochs")


@pytest.mark.parametrize(
    ("curve", "said"),
    [
        ({2: 0.41, 4: 0.5101}, "0.510 at epoch 4, 0.000 above the allowed 0.480 to 0.510"),
        ({2: 0.36, 4: 0.495}, "0.360 at epoch 2, 0.020 below the allowed 0.380 to 0.440"),
        ({2: 0.50, 4: 0.20}, "0.500 at epoch 2, 0.060 above the allowed 0.380 to 0.440; outside at 2 of 2 epochs, "
                             "furthest at epoch 4 by 0.280"),
        ({2: 0.45}, "0.450 at epoch 2, 0.010 above"),
    ],
)  # fmt: skip
def test_outside_names_the_epoch_and_by_how_much(curve: dict[int, float], said: str) -> None:
    run = judged(curve)
    assert run.passed is False
    assert said in run.verdict


def test_what_ends_early_or_has_no_known_spread_is_undecided() -> None:
    early = judged({1: 0.3, 2: 0.41, 3: 0.45})
    assert early.passed is None
    assert "inside up to epoch 2, but the curves go on to epoch 4" in early.verdict
    unknown = judged({2: 0.5, 4: 0.495}, UNKNOWN)
    assert unknown.passed is None
    assert "0.080 outside of its curves at most, at epoch 2; no run-to-run spread is stated" in unknown.verdict


@pytest.mark.parametrize("spread", [0.02, 0.03])
def test_curves_that_finding_nothing_would_follow_are_undecided(spread: float) -> None:
    low = Reference(
        "low", "", "", {"one": [{"epoch": e, "AP": 0.01 * e} for e in (1, 2)]}, {"AP": [[1, spread], [2, spread]]}
    )
    run = judged({1: 0.012, 2: 0.018}, low)
    assert run.passed is None
    assert run.verdict.startswith(
        "Undecided against low: torch, AP: inside at all 2 common epochs, but so is what finds"
    )
    assert judged({1: 0.0, 2: 0.0}, low).passed is None
    sharper = Reference("low", "", "", low.curves, {"AP": [[1, 0.02], [2, 0.019]]})
    assert judged({1: 0.012, 2: 0.018}, sharper).passed is True
    assert judged({1: 0.0, 2: 0.0}, sharper).passed is False


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(PortdetError, match=r"no epoch in common: theirs has AP at epochs 2, 4, torch at 1, 3\n"):
        judged({1: 0.4, 3: 0.5})
    with pytest.raises(PortdetError, match=r"torch has no AP, .*\n.*it has AP50"):
        judged({2: 0.4}, metric="AP50")
    with pytest.raises(PortdetError, match="validate it"):
        judged({2: -1.0})


def test_a_run_is_asked_before_it_is_trained() -> None:
    config = Config(train=TrainConfig(epochs=7), eval=EvalConfig(start=1, every=2))
    assert validated_epochs(config) == [1, 3, 5, 7]
    assert validated_epochs(Config(train=TrainConfig(epochs=6), eval=EvalConfig(start=2, every=3))) == [2, 5, 6]
    meets(THEIRS, [3, 4])
    with pytest.raises(PortdetError, match="theirs has AP at epochs 2, 4, the run at 1, 3, 5, 7"):
        meets(THEIRS, validated_epochs(config))


@pytest.mark.parametrize("name", ["ppyolo_voc2012", "ppyolov2_voc2012"])
def test_the_configuration_of_a_table_meets_it(name: str) -> None:
    assert validated_epochs(load(name)) == list(read_reference(name).allowed("AP"))


def test_a_failed_check_of_the_backends_stays_failed() -> None:
    run = AlignRun("demo", "", "", [BackendRun("torch", "", "", 0.0, [{"epoch": 4, "AP": 0.495}])], reference=THEIRS)
    run.checks = [judged({2: 0.9}).checks[0]]
    judge_against(run)
    assert run.passed is False


def test_beside() -> None:
    assert beside(0.1 + 0.2, (0.1, 0.3)) == 0.0, "rounding in the last bit is not outside"
    assert beside(0.4, (0.1, 0.3)) == pytest.approx(0.1)
    assert beside(0.05, (0.1, 0.3)) == pytest.approx(-0.05)


def test_tables_page_and_json(tmp_path: Path) -> None:
    run = judged({2: 0.36, 4: 0.495})
    out = io.StringIO()
    Console(file=out, width=120).print(*against_tables(run))
    assert all(words in out.getvalue() for words in ("AP against theirs", "0.380 to 0.440", "-0.020", "one", "two"))
    assert "| 2 | 0.360 | -0.020 | 0.380 to 0.440 | 0.400 | 0.420 |" in markdown(run)
    page = align_page.page(run, tmp_path)
    assert page.count('<polygon class="band"') == 2, "only AP has a known spread: as it is, and beside the middle"
    assert page.count('class="curve published"') == 5
    note = next(line for line in page.split("<title>") if line.startswith("torch, 2: -"))
    assert note.startswith("torch, 2: -0.05<"), "0.36 is 0.05 below the middle of 0.40 and 0.42"
    assert "Against theirs" in page
    assert "✗ fails" in page
    run.save(tmp_path / "align.json")
    assert AlignRun.load(tmp_path / "align.json") == run


# ---------------------------------------------------------------- the command on finished runs
PPDET = [0.417, 0.505, 0.547, 0.568, 0.584, 0.591, 0.594, 0.597]


def finished(folder: Path, ap: list[float], every: int = 2) -> Path:
    """A run folder as another program could leave it: results.csv alone."""
    folder.mkdir(parents=True)
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "AP"])
        writer.writerows([every * (i + 1), value] for i, value in enumerate(ap))
    return folder


def against(folder: Path, *words: str) -> int:
    return portdet(["align", "--against", *words, f"project={folder / 'out'}"])


def test_a_finished_run_against_a_published_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    healthy = finished(tmp_path / "healthy", [value + 0.002 for value in PPDET])
    assert against(tmp_path, "ppyolo_voc2012", str(healthy)) == 0
    said = capsys.readouterr().out
    assert "ok        healthy, AP against PP-YOLO r50vd-DCN on Pascal VOC 2012: inside at all 8 common epochs" in said
    left = tmp_path / "out" / "align" / "healthy"
    assert {path.name for path in left.iterdir()} == {"align.json", "align.html", "align.md", "side_by_side.png"}
    assert Image.open(left / "side_by_side.png").width > 1000


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = finished(tmp_path / "theirs", PPDET)
    healthy = finished(tmp_path / "healthy", [value + 0.004 for value in PPDET])
    faulty = finished(tmp_path / "faulty", [*PPDET[:5], 0.56, 0.56, 0.56])
    odd = finished(tmp_path / "odd", PPDET[:2], every=3)
    words = [str(theirs), "--spread", "0.006"]
    assert against(tmp_path, *words, str(healthy)) == 0
    assert against(tmp_path, *words, str(healthy), str(faulty)) == 1
    assert "Outside of theirs: faulty, AP: 0.560 at epoch 12, 0.025 below" in capsys.readouterr().out
    assert against(tmp_path, str(theirs), str(healthy)) == 2
    assert against(tmp_path, *words, str(odd)) == 1
    assert "odd, AP: 0.505 at epoch 6, 0.036 below" in capsys.readouterr().out, "epoch 3 is nobody else's"
    apart = finished(tmp_path / "apart", PPDET, every=17)
    for bad, said in (
        ([str(tmp_path / "nowhere.csv"), str(healthy)], "neither a file nor a published table"),
        ([str(theirs), str(healthy), str(healthy)], "named twice"),
        ([str(theirs), str(apart)], "no epoch in common"),
        ([str(theirs), str(healthy), "yolov3_scenes"], "'yolov3_scenes' is no run folder"),
        ([str(theirs), str(healthy), "epochs=3"], "'epochs' cannot be set for finished runs"),
    ):
        assert against(tmp_path, *bad) == 3, bad
        error = capsys.readouterr().err
        assert said in error
        assert "  -> " in error
    assert portdet(["align", str(healthy)]) == 3
    assert "add --against FILE" in capsys.readouterr().err
    names = {path.name for path in (tmp_path / "out" / "align").iterdir() if not list(path.iterdir())}
    assert names == set(), "an empty folder was left"


def test_a_training_that_could_not_be_compared_is_not_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["align", "yolov3_scenes", "--against", "ppyolo_voc2012", f"project={tmp_path}"]
    assert portdet([*words, "epochs=1"]) == 3
    assert "has AP at epochs 2, 4, 6, 8, 10, 12, 14, 16, the run at 1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("level", [[], ["--level", "train"]])
@pytest.mark.parametrize("way", ["the folder", "the file", "a link"])
def test_what_is_compared_with_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str, level: list[str]
) -> None:
    """With exist_ok a training may be asked to write where its own reference lies."""
    healthy = finished(tmp_path / "healthy", PPDET)
    assert against(tmp_path, "ppyolo_voc2012", str(healthy)) == 0
    earlier = tmp_path / "out" / "align" / "healthy"
    (tmp_path / "link").symlink_to(earlier)
    before = (earlier / "align.json").read_bytes()
    named = {"the folder": earlier, "the file": earlier / "align.json", "a link": tmp_path / "link"}[way]
    words = ["yolov3_scenes", "--backends", "torch,paddle", "epochs=2", "name=healthy", "exist_ok=true", *level]
    assert against(tmp_path, str(named), "--spread", "0.01", *words) == 3
    assert "the alignment would overwrite --against" in capsys.readouterr().err
    assert (earlier / "align.json").read_bytes() == before


@pytest.mark.slow
def test_a_training_against_an_earlier_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same seed gives the same AP, which lies between its own curves; another one's folder has no known spread."""
    tiny = ["epochs=2", "train_count=8", "val_count=4", "batch=4", "imgsz=64", "scene_size=64", "workers=0"]
    words = ["align", "yolov3_scenes", "--backends", "torch", *tiny, f"project={tmp_path}"]
    assert portdet(words) == 2, "one backend, and two epochs"
    earlier = tmp_path / "align" / "yolov3_scenes"
    capsys.readouterr()
    assert portdet([*words, "--against", str(earlier), "--spread", "0.001"]) == 2
    said = capsys.readouterr().out
    assert "undecided torch, AP against yolov3_scenes: inside at all 2 common epochs, but so is" in said
    assert "ok        initial weights" in said
    assert portdet(["align", "--against", str(earlier), str(earlier / "torch"), f"project={tmp_path}"]) == 2
    best = earlier / "torch" / "weights" / "best.safetensors"
    assert portdet([*words, f"pretrained={best}", "seed=3", "name=further"]) == 2
    scored = json.loads((tmp_path / "align" / "further" / "val" / "initial" / "metrics.json").read_text())["AP50"]
    found = AlignRun.load(tmp_path / "align" / "further" / "align.json")
    assert found.start == scored, "what the weights find before any training is known"
    start = load_file(tmp_path / "align" / "further" / "initial.safetensors")
    assert set(start) <= set(load_file(best))
    assert all(array.tobytes() == start[name].tobytes() for name, array in load_file(best).items() if name in start)
    page = (tmp_path / "align" / "torch" / "align.html").read_text()
    assert page.count("data:image/jpeg") == 1, "the run's own picture is shown from where it is"
