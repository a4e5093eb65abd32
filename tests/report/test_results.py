"""results.csv: what is written comes back, an interruption loses nothing, resume cuts where it should."""

from __future__ import annotations

from pathlib import Path

import pytest

from portdet.errors import PortdetError
from portdet.report.results import ResultsLog, read

COLUMNS = "epoch,time,step,lr,loss,xy,wh,AP,AP50,AP75,APs,APm,APl,AR1,AR10,AR100,ARs,ARm,ARl,images_per_s"


def row(epoch: int, **more: float) -> dict[str, float]:
    return {"epoch": epoch, "time": 1.5 * epoch, "step": 10 * epoch, "lr": 0.1 / 3, "loss": 7.25, **more}


def test_columns_and_values_come_back_with_all_bits(tmp_path: Path) -> None:
    log = ResultsLog(tmp_path / "results.csv", ["loss", "xy", "wh"])
    log.append(row(1, xy=1 / 3, AP=-1.0))
    log.append(row(2, AP=0.1 + 0.2, AP50=5e-324))
    lines = log.path.read_text().splitlines()
    assert lines[0] == COLUMNS
    assert lines[1].startswith("1,1.5,10,0.03333333333333333,7.25,0.3333333333333333,,,,")
    assert read(log.path) == [row(1, xy=1 / 3), row(2, AP=0.1 + 0.2, AP50=5e-324)]


def test_resume_cuts_to_the_resumed_epoch(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    log = ResultsLog(path, ["xy"])
    for epoch in (1, 2, 3):
        log.append(row(epoch))
    again = ResultsLog(path, ["xy"], resume_epoch=2)
    assert [r["epoch"] for r in read(path)] == [1, 2]
    again.append(row(3, xy=0.5))
    assert read(path) == [row(1), row(2), row(3, xy=0.5)]
    with pytest.raises(PortdetError, match="no column 'xy'"):
        ResultsLog(path, ["conf"], resume_epoch=3)
    ResultsLog(path, ["xy"])
    assert read(path) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = ResultsLog(tmp_path / "results.csv", [])
    log.append(row(1))
    before = log.path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(PortdetError, match="No space left"):
        log.append(row(2))
    assert log.path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["results.csv"]
    monkeypatch.undo()
    log.append(row(2))
    assert read(log.path) == [row(1), row(2)]


def test_errors_name_column_file_and_line(tmp_path: Path) -> None:
    log = ResultsLog(tmp_path / "results.csv", [])
    with pytest.raises(PortdetError, match="did you mean 'AP50'"):
        log.append(row(1) | {"Ap50": 0.1})
    log.append(row(2))
    with pytest.raises(PortdetError, match="epoch 2 after epoch 2"):
        log.append(row(2))
    with pytest.raises(PortdetError, match="cannot be read"):
        read(tmp_path / "absent.csv")
    log.path.write_text(log.path.read_text() + "3,1.0\n")
    with pytest.raises(PortdetError, match=r"results\.csv:3: 2 cells"):
        read(log.path)
    (tmp_path / "other.csv").write_text("a,b\n")
    with pytest.raises(PortdetError, match="not a results file"):
        read(tmp_path / "other.csv")
