"""Tables of published curves: the shipped ones hold what was published, and every mistake in one is explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from portdet.align.published import read_reference
from portdet.errors import PortdetError
from portdet.report.align_run import AlignRun, BackendRun

TABLE = """
title: a system
source: a paper
trained: 4 epochs
epochs: [2, 4]
spread:
  AP: {2: 0.02, 4: 0.01}
curves:
  first: {AP: [0.40, 0.50], AP50: [null, 0.7]}
  second: {AP: [0.43, 0.49]}
"""


def table(folder: Path, text: str) -> str:
    (folder / "table.yaml").write_text(text)
    return str(folder / "table.yaml")


def test_ppyolo_as_published() -> None:
    """Against the ends of the logs' curves, and the statement that 1 and 2 GPUs differ by .012 at first, .005 last."""
    found = read_reference("ppyolo_voc2012")
    assert found.curve("PaddleDetection 2.4, 1 GPU", "AP")[2] == 0.417
    assert found.curve("PaddleDetection 2.4, 1 GPU", "APl")[16] == 0.681
    assert found.curve("PaddleDetection 2.4, 2 GPUs", "AP") == {
        2: 0.405, 4: 0.516, 6: 0.548, 8: 0.571, 10: 0.585, 12: 0.593, 14: 0.598, 16: 0.602,
    }  # fmt: skip
    assert found.curve("miemiedetection, 2 GPUs", "AP")[14] == 0.600
    assert found.curve("PaddleDetection 2.4, 1 GPU, 1 epoch", "AP50") == {1: 0.393}
    assert found.allowed("AP")[16] == pytest.approx((0.597 - 0.005, 0.606 + 0.005))
    assert 1 not in found.allowed("AP"), "nobody knows how far a first epoch scatters"
    assert found.metrics()[:2] == ["AP", "AP50"]


@pytest.mark.parametrize("name", ["ppyolo_voc2012", "ppyolov2_voc2012"])
def test_the_stated_spread_covers_one_gpu_against_two(name: str) -> None:
    found = read_reference(name)
    for program in ("PaddleDetection 2.4", "miemiedetection"):
        for metric in ("AP", "AP50"):
            if f"{program}, 1 GPU" not in found.curves:
                continue
            one, two = (found.curve(f"{program}, {gpus}", metric) for gpus in ("1 GPU", "2 GPUs"))
            wide = {e: high - found.span(metric)[e][1] for e, (_, high) in found.allowed(metric).items()}
            assert all(abs(one[e] - two[e]) <= wide[e] + 1e-9 for e in one)
            assert max(abs(one[e] - two[e]) / wide[e] for e in one) > 0.4, "wider than what was seen"


def test_the_band_by_hand(tmp_path: Path) -> None:
    found = read_reference(table(tmp_path, TABLE))
    assert found.span("AP") == {2: (0.40, 0.43), 4: (0.49, 0.50)}
    assert found.allowed("AP")[2] == pytest.approx((0.38, 0.45))
    assert found.allowed("AP")[4] == pytest.approx((0.48, 0.51))
    assert found.span("AP50") == {4: (0.7, 0.7)}
    assert found.allowed("AP50") == {}
    middle = read_reference(table(tmp_path, TABLE.replace("[2, 4]", "[3, 4]")))
    assert middle.allowed("AP")[3] == pytest.approx((0.40 - 0.015, 0.43 + 0.015)), "linear in between"


def test_a_run_and_an_alignment_are_curves_too(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "results.csv").write_text("epoch,loss,AP,AP50\n1,9,0.1,-1\n2,5,,\n3,4,0.2,0.5\n")
    for target in (folder, folder / "results.csv"):
        found = read_reference(str(target), 0.03)
        assert found.curve("run", "AP") == {1: 0.1, 3: 0.2}
        assert found.curve("run", "AP50") == {3: 0.5}
        assert found.allowed("AP")[3] == pytest.approx((0.17, 0.23))
    backends = [BackendRun(name, "", "", 0.0, [{"epoch": 1, "AP": ap, "loss": 3.0}]) for name, ap in
                (("torch", 0.2), ("paddle", 0.3))]  # fmt: skip
    AlignRun("both", "", "", backends).save(tmp_path / "align.json")
    assert read_reference(str(tmp_path)).span("AP") == {1: (0.2, 0.3)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("title: a system", "titel: a system"), "did you mean 'title'"),
        (("source: a paper", ""), "'source' is missing or empty"),
        (("AP50:", "mAP50:"), "did you mean 'AP50'"),
        (("AP: {2:", "APP: {2:"), "did you mean 'AP'"),
        (("[0.40, 0.50]", "[0.40]"), "1 values of AP for 2 epochs"),
        (("[0.40, 0.50]", "[0.40, 50.0]"), "first: AP, epoch 4: 50.0 is no AP"),
        (("[0.40, 0.50]", "[0.40, x]"), "'x' is no AP"),
        (("epochs: [2, 4]", "epochs: [4, 2]"), "do not rise"),
        (("epochs: [2, 4]", ""), "epochs are None"),
        (("{2: 0.02, 4: 0.01}", "0.02"), "spread.AP: expected names with values"),
        (("{AP: [0.43, 0.49]}", "{}"), "second: an empty curve"),
        (("{AP: [0.43, 0.49]}", "[0.43, 0.49]"), "second: expected names with values, found list"),
        (("title", "{title"), "not valid YAML"),
    ],
)
def test_a_mistake_in_a_table_is_explained(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    assert change[0] in TABLE
    with pytest.raises(PortdetError) as error:
        read_reference(table(tmp_path, TABLE.replace(*change)))
    assert said in str(error.value)
    assert "table.yaml" in str(error.value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "[]"])
def test_an_empty_table(tmp_path: Path, text: str) -> None:
    with pytest.raises(PortdetError, match="an empty table"):
        read_reference(table(tmp_path, text))


def test_what_is_no_curve(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").touch()
    (tmp_path / "results.csv").write_text("epoch,loss\n1,5\n")
    (tmp_path / "empty").mkdir()
    for target, said in (
        ("ppyolo_voc", "did you mean 'ppyolo_voc2012'"),
        (str(tmp_path / "weights.pth"), "cannot read curves from"),
        (str(tmp_path / "empty"), "neither align.json nor results.csv"),
        (str(tmp_path / "results.csv"), "no AP in it"),
    ):
        with pytest.raises(PortdetError) as error:
            read_reference(target)
        assert said in str(error.value)


def test_a_spread_that_the_table_states_cannot_be_overridden(tmp_path: Path) -> None:
    with pytest.raises(PortdetError, match="states its spread itself"):
        read_reference(table(tmp_path, TABLE), 0.5)
