"""Words in, exit code and text out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from portdet import __version__
from portdet.cli import __main__ as cli
from portdet.errors import PortdetError
from portdet.train.interrupt import Interrupted
from tests.patience import GUARD

FRAMEWORKS = ("torch", "mindspore", "paddle", "matplotlib", "cv2", "pydantic", "rich")
TINY = """
model: {name: yolov3, width: 0.0625, depths: [1, 1, 1, 1, 1], classes: 3}
data: {imgsz: 64, batch: 2, max_boxes: 4}
train: {epochs: 2}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return str(path)


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        ("--version", 0, f"portdet {__version__}"),
        ("--help", 0, "Train a detector on one backend."),
        ("tran", 2, "no command 'tran'; did you mean 'train'?"),
        ("show model nowhere", 1, "error: no configuration 'nowhere'"),
        ("show model CONFIG", 0, "GFLOPs and"),
        ("show model CONFIG imgsz=96 --images 2", 0, "for 2 x 3 x 96 x 96"),
        ("show model yolov3_scenes --depth 1", 0, "1x1008x8"),  # three classes, as training on scenes finds
        ("show config CONFIG epohs=3", 1, "error: unknown key 'epohs'\n  -> did you mean 'epochs'?"),
        ("show config CONFIG optim.lr=3", 1, "unknown key 'optim.lr'\n  -> did you mean 'optim.lr0'?"),
        ("show config CONFIG --devise cpu", 2, "'--device'"),
        ("show config CONFIG --epochs", 2, "--epochs needs a value"),
        ("show config CONFIG epochs=many", 1, "train.epochs = 'many'"),
        ("show config CONFIG model.widht=1 ", 0, "widht: 1"),  # the model's fields are checked by the model
        ("show model CONFIG model.widht=1", 1, "unknown key 'model.widht'\n  -> did you mean 'width'?"),
        ("show model CONFIG model.name=yolov9", 1, "unknown model 'yolov9'\n  -> known: ppyolo, yolov3"),
        ("show graph CONFIG", 0, "module backbone.conv0: ConvNorm"),
        ("show backends", 0, "torch"),
        ("show configs", 0, "yolov3_scenes"),
        ("emit CONFIG --backend torsh", 1, "unknown backend 'torsh'\n  -> did you mean 'torch'?"),
        ("emit CONFIG", 0, "class YOLOv3(nn.Module):"),
        ("doctor --backend torsh", 1, "unknown backend 'torsh'"),
        ("help config", 0, "lr0=0.01"),
        ("help config optm", 1, "no section 'optm'\n  -> did you mean 'optim'?"),
        ("help model yolov3", 0, "ignore_threshold=0.7"),
        ("help model", 1, "no model ''"),
        ("help emit", 0, "Usage: portdet emit [OPTIONS] CONFIG [KEY=VALUE]..."),
        ("help emti", 1, "no help on 'emti'\n  -> did you mean 'emit'?"),
        ("weights show nowhere.ckpt", 1, "nowhere.ckpt"),
        ("convert nowhere.ckpt --to pth", 1, "nowhere.ckpt"),
    ],
)
def test_words_give_exit_code_and_text(
    args: str, code: int, text: str, tiny: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(args.replace("CONFIG", tiny).split()) == code
    printed = capsys.readouterr()
    assert text in printed.out + printed.err
    assert "Traceback" not in printed.err
    assert not code or not printed.out.strip(), "errors go to stderr"


def test_overrides_come_as_words_and_flags_and_the_last_counts(tiny: str) -> None:
    words = ["--lr0", "0.5", "epochs=7", tiny, "--epochs=9", "--exist-ok", "--no-nesterov", "sizes=[64,96]"]
    result = CliRunner().invoke(cli.portdet, ["show", "config", *words])
    values = yaml.safe_load(result.stdout)
    assert (values["optim"]["lr0"], values["train"]["epochs"], values["train"]["exist_ok"]) == (0.5, 9, True)
    assert (values["optim"]["nesterov"], values["data"]["sizes"], values["data"]["batch"]) == (False, [64, 96], 2)


def test_show_config_reads_back_to_the_same_values(tiny: str, tmp_path: Path) -> None:
    printed = CliRunner().invoke(cli.portdet, ["show", "config", tiny, "ema.kind=threshold"]).stdout
    (tmp_path / "args.yaml").write_text(printed)
    assert CliRunner().invoke(cli.portdet, ["show", "config", str(tmp_path / "args.yaml")]).stdout == printed


def _fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (PortdetError("no disk", fix="buy one", where="a.yaml:3"), 1, "error: a.yaml:3: no disk\n  -> buy one\n"),
        (Interrupted("stopped after 3 steps", fix="resume"), 130, "error: stopped after 3 steps\n  -> resume\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_errors_reach_the_user_without_traceback(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.portdet, "invoke", lambda context: _fail(error))
    assert cli.run(["show", "backends"]) == code
    assert capsys.readouterr().err.endswith(text)


def test_a_programming_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.portdet, "invoke", lambda context: _fail(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.run(["show", "backends"])


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_renders_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([name, "--help"]) == 0
    assert f"Usage: portdet {name}" in capsys.readouterr().out


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=GUARD, check=True)
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("args", "heavy"),
    [
        (["--help"], FRAMEWORKS),
        (["tran"], FRAMEWORKS),
        (["show", "model", "CONFIG"], ("torch", "mindspore", "paddle", "matplotlib")),
        (["emit", "CONFIG"], ("torch", "mindspore", "paddle", "matplotlib")),
        (["doctor", "--help"], ("torch", "mindspore", "paddle", "matplotlib")),
    ],
)
def test_commands_import_only_what_they_need(args: list[str], heavy: tuple[str, ...], tiny: str) -> None:
    words = [tiny if word == "CONFIG" else word for word in args]
    code = (
        "import sys, json; from portdet.cli.__main__ import run; "
        f"run({words!r}); print(json.dumps([m for m in {heavy!r} if m in sys.modules]))"
    )
    assert json.loads(_python(code)) == []


def test_python_dash_m_works_and_a_closed_pipe_is_no_error(tiny: str) -> None:
    done = subprocess.run([sys.executable, "-m", "portdet", "--version"], capture_output=True, text=True, timeout=GUARD)
    assert done.stdout == f"portdet {__version__}\n"
    read, write = os.pipe()
    os.close(read)
    child = subprocess.run(
        [sys.executable, "-m", "portdet", "show", "graph", tiny], stdout=write, stderr=subprocess.PIPE, timeout=GUARD
    )
    os.close(write)
    assert (child.returncode, child.stderr) == (141, b"")


def test_one_table_of_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    page = (Path(__file__).parents[2] / "docs" / "comparing.md").read_text()
    for code, words in cli.EXIT_CODES.items():
        assert f"{code} {words}" in said
        assert f"| {code} | {words} |" in page


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("train --nosuch", 2), ("val", 2), ("weights show", 2), ("nosuch", 2), ("weights nosuch", 2),
        ("align --nosuch", 3), ("align", 3), ("compare", 3), ("compare a --nosuch", 3), ("weights diff a", 3),
        ("align nosuch", 3), ("compare nosuch1 nosuch2", 3), ("weights diff nosuch1 nosuch2", 3), ("val nosuch", 1),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_never_undecided(words: str, code: int) -> None:
    assert cli.run(words.split()) == code
