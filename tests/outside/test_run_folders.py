"""What is read back from a run's folder, which may be somebody else's: checkpoints, logs, plans, outcomes, curves."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from portdet.align.compare import Dump, Envelope
from portdet.align.finished import read_run, read_trace
from portdet.align.ladder.plan import Plan
from portdet.align.published import read_reference
from portdet.errors import PortdetError
from portdet.report.align_run import AlignRun
from portdet.report.ladder_data import LadderReport
from portdet.report.outcome import load as load_outcome
from portdet.report.results import read as read_results
from portdet.train import checkpoint
from portdet.train.journal import Journal
from tests.train.fakes import train

DEEP = "[" * 500 + "]" * 500


def said_by(work: Callable[[], Any]) -> str:
    with pytest.raises(PortdetError) as error:
        work()
    said = str(error.value)
    assert len(said) < 2000
    assert said.replace("\n", "").isprintable()
    return said


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run's last.safetensors, and its progress as JSON."""
    folder = tmp_path_factory.mktemp("run")
    train(folder)[0].run()
    path = folder / "weights" / "last.safetensors"
    with safe_open(path, framework="numpy") as file:
        return path, json.loads(file.metadata()["portdet"])


METADATA: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "not valid JSON"),
    "nested deeply": (DEEP, "nested more than 64"),
    "nested so deeply that Python gives up": ("[" * 100_000, "nested too deeply"),
    "10^5 digits": ('{"format": ' + "1" * 100_000 + "}", "not valid JSON"),
    "a list": ([1], "input should be a valid dictionary"),
    "null": (None, "input should be a valid dictionary"),
    "no format": ({"format": ...}, "format: field required"),
    "no version": ({"version": ...}, "version: field required"),
    "a format of text": ({"format": "1"}, "format = '1'"),
    "a later format": ({"format": 2}, "checkpoint format 2"),
    "a version of 10^6 characters": ({"version": "9" * 10**6}, "at most 40"),
    "an escape sequence": ({"version": "\x1b[2J" * 20}, r"\x1b[2J"),
    "an unknown key": ({"\x1b[2J" * 2000: 1}, "holds no state to resume from ('\\x1b"),
    **{f"{key} of {json.dumps(value)[:12]}": ({key: value}, f"{key} = ")
       for key in ("epoch", "epoch_step", "step", "ema_updates", "loss_count", "stale", "steps_per_epoch")
       for value in ("1", -5, 1.5, None, True, [1], 2**70)},
    **{f"{key} of {json.dumps(value)[:12]}": ({key: value}, f"{key} = ")
       for key in ("best", "seconds") for value in ("1", None, True, [1])},
    "negative seconds": ({"seconds": -1}, "seconds = -1"),
    "losses of text": ({"loss_sums": {"loss": "x"}}, "loss_sums.loss = 'x'"),
    "losses in a list": ({"loss_sums": [1]}, "loss_sums = [1]"),
    "NaN": ('{"best": NaN}', "NaN is no JSON number"),
    "a scale of nothing": ({"loss_scale": {"scale": 0}}, "loss_scale"),
    "a scale of an unknown key": ({"loss_scale": {"unknown": 0}}, "loss_scale"),
    "a scale in a list": ({"loss_scale": [1]}, "loss_scale = [1]"),
    "a configuration in a list": ({"config": [1]}, "config = [1]"),
    "another configuration": ({"config": {"x" * 5000: "y" * 5000}}, "not the same training"),
    "steps that are not the epochs'": ({"step": 1}, "contradicts itself: step 1 is not epoch"),
    "steps beyond the epoch": ({"epoch": 0, "epoch_step": 15}, "step 15 of an epoch of"),
    "losses of more steps": ({"loss_count": 9}, "losses of 9 of 0 steps"),
    "updates of more steps": ({"ema_updates": 99}, "99 updates in 15 steps"),
    "best in a later epoch": ({"best_epoch": 7}, "best in epoch 7 of 3"),
    "validations of no epoch": ({"stale": 77}, "77 validations in"),
}  # fmt: skip


@pytest.mark.parametrize("case", METADATA)
def test_wrong_metadata_of_a_checkpoint(case: str, stopped: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    path, progress = stopped
    change, said = METADATA[case]
    if isinstance(change, dict):
        text = json.dumps({key: value for key, value in {**progress, **change}.items() if value is not ...})
    else:
        text = change if isinstance(change, str) else json.dumps(change)
    trainer, _ = train(tmp_path)
    trainer.last.parent.mkdir(parents=True)
    save_file(load_file(path), trainer.last, metadata={"portdet": text})
    assert said in said_by(trainer.resume)
    words = checkpoint.held(text)  # what `val`, `predict` and `weights show` say of the file
    assert len(words) < 300
    assert words.isprintable()


def test_the_checkpoint_that_is_changed_there_is_good(stopped: tuple[Path, dict[str, Any]]) -> None:
    path, progress = stopped
    assert checkpoint.load_state(path)[1].step == progress["step"] == 15
    assert checkpoint.held(json.dumps(progress)).startswith("state of training after 15 steps")


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path, Path("n" * 300)):
        assert "no checkpoint" in said_by(lambda path=path: checkpoint.load_state(path))  # type: ignore[misc]


# ---------------------------------------------------------------------------------------------- logs
STEPS = "epoch,step,lr,loss,batch\n1,0,0.1,2.5,aa\n1,1,0.1,2.4,bb\n"
RESULTS = "epoch,time,AP\n1,0.5,0.1\n"

LOGS: dict[str, tuple[str, str, str]] = {
    "results of text": (RESULTS.replace("0.1", "x"), STEPS, "not a number"),
    "results without epochs": ("time,AP\n1,1\n", STEPS, "first column is not 'epoch'"),
    "an epoch of text": (RESULTS.replace("1,0.5", "one,0.5"), STEPS, "the epoch is 'one'"),
    "no epoch": (RESULTS.replace("1,0.5", ",0.5"), STEPS, "the epoch is ''"),
    "an epoch of 10^9": (RESULTS.replace("1,0.5", "1" * 5000 + ",0.5"), STEPS, "the epoch is '111"),
    "a column twice": ("epoch,AP,AP\n1,1,1\n", STEPS, "one stands twice"),
    "a long cell": (RESULTS + "2,3," + "9" * 200_000 + "\n", STEPS, "not valid CSV"),
    "no UTF-8": ("epoch\udcff\n", STEPS, "cannot be read"),
    "a loss of text": (RESULTS, STEPS.replace("2.5", "x"), "'loss' is 'x', no number"),
    "no loss": (RESULTS, STEPS.replace("loss", "other"), "no column loss"),
}


@pytest.mark.parametrize("case", LOGS)
def test_wrong_logs(case: str, tmp_path: Path) -> None:
    results, steps, said = LOGS[case]
    (tmp_path / "results.csv").write_text(results, errors="surrogateescape")
    (tmp_path / "steps.csv").write_text(steps)
    assert said in said_by(lambda: read_run(tmp_path, "torch", tmp_path))


def test_whole_logs(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(RESULTS)
    (tmp_path / "steps.csv").write_text(STEPS + "2,2")  # a killed process leaves half a line
    run = read_run(tmp_path, "torch", tmp_path)
    assert (run.step_losses, run.epochs) == ([2.5, 2.4], [{"epoch": 1, "time": 0.5, "AP": 0.1}])
    assert read_trace(tmp_path).first_losses == {"loss": 2.5}


@pytest.mark.parametrize("text", ["[1]", '{"torch": 1}', "{", DEEP, '{"torch": ["2"]}'])
def test_wrong_facts(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(RESULTS)
    (tmp_path / "session.json").write_text(text)
    assert "session.json: " in said_by(lambda: read_run(tmp_path, "torch", tmp_path))


@pytest.mark.parametrize("text", ["other\n1\n", "step,step\n1,2\n", "step\n" + "1" * 200_000 + "\n"])
def test_a_log_that_a_resumed_run_cannot_go_on_with(text: str, tmp_path: Path) -> None:
    (tmp_path / "steps.csv").write_text(text)
    assert "the log starts anew" in said_by(lambda: Journal(tmp_path / "steps.csv").forget_after("step", 3))


def test_rows_of_no_step_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / "steps.csv").write_text("step,x\n1,a\nx,b\n-1,c\n" + "9" * 50 + ",d\n2,e\n7,f\n")
    Journal(tmp_path / "steps.csv").forget_after("step", 3)
    assert (tmp_path / "steps.csv").read_text() == "step,x\n1,a\n2,e\n"


# ---------------------------------------------------------------------------------------------- alignments
JSON = ["{", "[]", "null", '"text"', DEEP, "[" * 100_000, '{"config": 1}', "\x1b[2J", "1" * 5000]


@pytest.mark.parametrize("text", JSON, ids=range(len(JSON)))
def test_files_of_an_alignment_that_are_none(text: str, tmp_path: Path) -> None:
    for name in ("plan.json", "align.json", "outcome.json", "envelope.json"):
        (tmp_path / name).write_text(text)
    assert "plan.json" in said_by(lambda: Plan.load(tmp_path))
    assert "align.json" in said_by(lambda: AlignRun.load(tmp_path / "align.json"))
    assert "align.json" in said_by(lambda: read_reference(str(tmp_path)))
    assert "outcome.json" in said_by(lambda: load_outcome(tmp_path / "outcome.json"))
    assert "envelope.json" in said_by(lambda: Envelope.load(tmp_path / "envelope.json"))
    said_by(lambda: LadderReport.from_json(text, "align.json"))


PLAN: dict[str, Any] = {"config": {}, "folder": "/", "backends": ["torch"], "levels": ["ops"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backends": ["../../x"]}, "holds a path separator"),
        ({"reference": "/etc/x"}, "holds a path separator"),
        ({"faulty": "a\nb"}, "control characters"),
        ({"levels": ["../x"]}, "holds a path separator"),
        ({"points": [-1]}, "points.0 = -1"),
        ({"points": [10**12]}, "points.0 = 1000000000000"),
        ({"margin": "nan"}, "margin"),
        ({"self_runs": "x"}, "self_runs = 'x'"),
        ({"config": {"train": 3}}, "config.train = 3"),
        ({"config": {"train": {"name": "../x"}}}, "holds a path separator"),
    ],
)
def test_a_plan_of_somebody_else(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(PLAN | change))
    assert said in said_by(lambda: Plan.load(tmp_path))
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    assert Plan.load(tmp_path).place == tmp_path.resolve()


@pytest.mark.parametrize("picture", ["/etc/passwd", "../secret.png", "a/../../secret.png"])
def test_a_page_shows_pictures_of_its_folder_alone(picture: str, tmp_path: Path) -> None:
    run = AlignRun("c", "", "", [], pictures={"x": picture})
    run.save(tmp_path / "align.json")
    assert "the picture" in said_by(lambda: AlignRun.load(tmp_path / "align.json"))


@pytest.mark.parametrize("row", [{"AP": 1}, {"epoch": "nan", "AP": 1}, {"epoch": 1.5}, {"epoch": -1}, {"epoch": 1e300}])
def test_curves_whose_epochs_are_none(row: dict[str, Any], tmp_path: Path) -> None:
    backend = {"name": "a", "version": "", "device": "", "seconds": 0, "epochs": [row]}
    plain = {"config_name": "c", "rule_text": "", "verdict": "", "backends": [backend]}
    (tmp_path / "align.json").write_text(json.dumps(plain))
    assert "an epoch's row has its number" in said_by(lambda: read_reference(str(tmp_path)))


TABLE = "title: t\nsource: s\ntrained: x\nepochs: [1]\ncurves: {c: {AP: [0.5]}}\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("title: t", "title: [t]"), "expected text, found ['t']"),
        (("[1]", "[9223372036854775807]"), "epochs are"),
        (("0.5", ".nan"), "is no AP"),
        (("curves", "spread: {AP: {9223372036854775807: 0.1}}\ncurves"), "a spread by epoch"),
        (("title: t", "title: t\ntitle: u"), "stands twice"),
        (("x\n", "!!python/name:os.system\n"), "not taken"),
        (("{c:", f"{{{'c' * 900}:"), "no AP" and "0.9"),
    ],
)
def test_published_curves(change: tuple[str, str], said: str, tmp_path: Path) -> None:
    path = tmp_path / "table.yaml"
    if said == "0.9":
        path.write_text(TABLE.replace(*change))
        assert [len(name) for name in read_reference(str(path)).curves] == [200]
        return
    path.write_text(TABLE.replace(*change))
    assert said in said_by(lambda: read_reference(str(path)))


# ---------------------------------------------------------------------------------------------- dumps
def header(table: Any, data: bytes = b"") -> bytes:
    text = (table if isinstance(table, str) else json.dumps(table)).encode()
    return len(text).to_bytes(8, "little") + text + data


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    "content",
    [
        header([1]), header("[" * 100_000), header({"a": 1}), header({"a": ENTRY}),
        header({"a": {**ENTRY, "shape": 1}}),
        header({"a": {**ENTRY, "shape": [1e999]}}, b"1234"), header({"a": {**ENTRY, "dtype": []}}, b"1234"),
        header({"a": {**ENTRY, "data_offsets": [0, None]}}, b"1234"), header({"__metadata__": [1]}), b"", b"\xff" * 99,
        header({"a" * 9000: {**ENTRY, "shape": [2]}}, b"1234"), header({"a": {**ENTRY, "shape": [-1]}}, b"1234"),
    ],
)  # fmt: skip
def test_dumps_that_are_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "d.safetensors").write_bytes(content)
    assert "not a safetensors file" in said_by(lambda: Dump(tmp_path / "d.safetensors"))


def test_a_dump_that_is_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in said_by(lambda: Dump(tmp_path / "pipe"))
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "d.safetensors")
    assert list(Dump(tmp_path / "d.safetensors")) == ["a"]


def test_results_that_are_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "results.csv")
    assert "not a regular file" in said_by(lambda: read_results(tmp_path / "results.csv"))
