"""Names from outside on the terminal, in pictures and on pages: shown as they are spelled, commanding nothing."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import subprocess
import sys
import types
import typing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

from portdet.cli.__main__ import run
from portdet.config import load
from portdet.console import cell, console, say
from portdet.errors import PortdetError
from portdet.evaluate.coco_map import evaluate
from portdet.report import align_page, ladder_page
from portdet.report.align_run import AlignRun
from portdet.report.align_tables import against_tables, console_table
from portdet.report.ladder_data import LadderReport
from portdet.report.progress import Progress
from portdet.report.scores import score_table
from tests.patience import GUARD

ROOT = Path(__file__).parents[2]
NAMES = [
    "\x1b[2J\x1b]0;title\x07", "[red]x[/red]", "a[/b]", ":smile:", "$\\frac{", "a\nb\rc", "\u202egpj.exe", "\x9b31m",
    "日本", "<script>alert(1)</script>", "_hidden", "\\", "%s{0}", " ",
]  # fmt: skip
SPELLED = [repr(name)[1:-1].replace("\\\\", "\\") for name in NAMES]


def is_plain(text: str) -> bool:
    return text.replace("\n", "").isprintable()


# ---------------------------------------------------------------------------------------------- one way out
PRINTS = {  # each prints what has been made plain
    "portdet/console.py", "portdet/cli/__main__.py", "portdet/report/progress.py", "portdet/align/ladder/shown.py",
}  # fmt: skip


def printing(source: str) -> list[int]:
    """Lines that print, or make a rich console of their own."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "click.echo", "click.secho", "Console"):
            found.append(node.lineno)
    return found


def test_everything_is_printed_by_the_console() -> None:
    files = sorted((ROOT / "portdet").rglob("*.py"))
    assert len(files) > 100
    found = {str(path.relative_to(ROOT)): printing(path.read_text(encoding="utf-8")) for path in files}
    assert {name for name, lines in found.items() if lines} == PRINTS
    assert printing("print(1)\nclick.echo(x)\nconsole().print(2)\nrich.Console()") == [1, 2]


def test_lines_cells_and_tables_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    table = Table(*NAMES, title=cell(NAMES[0]))
    table.add_row(*NAMES)
    table.add_row(*map(cell, NAMES))
    for name, spelled in zip(NAMES, SPELLED, strict=True):
        if "\n" not in name:
            say(name)
            assert capsys.readouterr().out == spelled + "\n"
        console().print(name, soft_wrap=True)
        assert is_plain(out := capsys.readouterr().out)
        assert "\n" in name or out == spelled + "\n"
        assert cell(name).plain == spelled
    console(width=800).print(table)
    assert is_plain(out := capsys.readouterr().out)
    assert all(out.count(spelled) >= 2 for name, spelled in zip(NAMES, SPELLED, strict=True) if "\n" not in name)


def test_progress_and_errors_are_plain(capsys: pytest.CaptureFixture[str]) -> None:
    for name in NAMES:
        Progress(1, 1, batch=1).note(name)
        error = PortdetError(name, fix=name, where=name)
        assert is_plain(str(error))
        assert is_plain(error.what + error.fix + error.where)
    assert is_plain(capsys.readouterr().out)


def test_scores_of_classes_of_any_name(capsys: pytest.CaptureFixture[str]) -> None:
    truth = {
        "images": [{"id": 1}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)],
    }
    for table in score_table(evaluate(truth, [])):
        console().print(table)
    out = capsys.readouterr().out
    assert is_plain(out)
    assert "[red]x[/red]" in out


# ---------------------------------------------------------------------------------------------- commands
@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """A COCO data set of these classes; an image has an escape sequence in its name as far as the gate lets it."""
    image = "\u202e[red]x.png"
    Pillow.effect_noise((64, 64), 50).convert("RGB").save(tmp_path / image)
    boxes = [
        {"id": i, "image_id": 1, "category_id": i, "bbox": [i * 3, 5, 20, 20], "iscrowd": int(i == 2)}
        for i in range(1, len(NAMES) + 1)
    ]
    content = {
        "images": [{"id": 1, "file_name": image, "width": 64, "height": 64}],
        "annotations": [*boxes, {**boxes[0], "id": 99, "bbox": [-9, 5, 20, 20]}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(NAMES, 1)],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    words = ["data.format=coco", "train=a.json", "val=a.json", "train_images=.", "val_images=.", f"root={tmp_path}"]
    return [*words, "imgsz=64", "batch=1", "workers=0", "threads=1", "epochs=1", f"project={tmp_path / 'runs'}"]


def test_the_commands_print_plain_text(data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "[b]c[$x].yaml"
    config.write_text("model: {name: yolov3, width: 0.0625, depths: [1, 1, 1, 1, 1]}\n")
    assert run(["data", "show", str(config), "--pictures", str(tmp_path / "pictures"), *data]) == 0
    assert run(["data", "show", str(config), "--json", *data]) == 0
    assert run(["train", str(config), *data]) == 0
    folder = tmp_path / "runs" / "train" / "[b]c[$x]"
    assert run(["val", str(folder), "max_det=10"]) == 0
    assert run(["predict", str(folder), str(tmp_path), "--score", "0"]) == 0
    printed = capsys.readouterr()
    assert is_plain(printed.out)
    assert is_plain(printed.err.replace("\r", ""))
    for text in ("[red]x[/red]", "a[/b]", r"\x1b[2J", r"\u202e[red]x.png"):
        assert text in printed.out
    assert run(["show", "config", str(config), 'names=["\\u202ex"]']) == 0
    (tmp_path / "again.yaml").write_text(shown := capsys.readouterr().out)
    assert is_plain(shown)
    assert load(str(tmp_path / "again.yaml")).data.names == ["\u202ex"]


@pytest.mark.parametrize(
    "words",
    [["train", "\x1b[2J"], ["\x1b[2J"], ["train", "--\x1b[2J", "1"], ["train", "x.yaml", "\x1b[2J=1"],
     ["predict", "\x1b[2J", "\x1b[2J"], ["align", "\x1b[2J"], ["align", "--level", "\x1b[2J", "yolov3_scenes"],
     ["compare", "\x1b[2J", "\x1b[2J"], ["convert", "\x1b[2J", "-o", "x.npz"], ["weights", "show", "\x1b[2J"],
     ["bench", "\x1b[2J"], ["conformance", "--backend", "\x1b[2J"], ["doctor", "--backend", "\x1b[2J"],
     ["help", "\x1b[2J"], ["val", "yolov3_scenes", "--weights", "\x1b[2J"],
     ["data", "convert", "voc", "\x1b[2J", "-o", "x"]],
)  # fmt: skip
def test_errors_about_the_command_line_are_plain(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) in (1, 2, 3)
    printed = capsys.readouterr()
    assert is_plain(printed.out + printed.err)


def test_a_name_that_the_terminals_encoding_lacks(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("data: {names: [日本]}\n")
    done = subprocess.run(
        [sys.executable, "-m", "portdet", "show", "config", str(tmp_path / "c.yaml")],
        capture_output=True, cwd=ROOT, timeout=GUARD, check=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert rb"\u65e5\u672c" in done.stdout


@pytest.mark.parametrize("limit", [60_000, 200_000, 400_000])
def test_little_address_space_is_said_in_words(limit: int, tmp_path: Path) -> None:
    """Kilobytes. A process of its own: the limit cannot be taken back."""
    done = subprocess.run(
        ["bash", "-c", f'ulimit -v {limit}; exec "$@"', "-", sys.executable, "-m", "portdet", "train",
         "yolov3_scenes", f"project={tmp_path}"],
        capture_output=True, text=True, cwd=ROOT, timeout=GUARD, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: there is not enough memory" in done.stderr
    assert "ulimit -v" in done.stderr
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------------------------------------- pages
PAYLOAD = "<img src=x onerror=alert(1)>\"'`\u202e"


def filled(of: Any, depth: int = 0) -> Any:
    """A value of a type with the payload wherever text may stand."""
    origin, inner = typing.get_origin(of), typing.get_args(of)
    if dataclasses.is_dataclass(of) and isinstance(of, type):
        hints = typing.get_type_hints(of)
        return of(**{field.name: filled(hints[field.name], depth + 1) for field in dataclasses.fields(of)})
    if origin is list:
        return [filled(inner[0], depth + 1)]
    if origin is dict:
        key = filled(inner[0], depth + 1)
        return {"epoch": 1.0, "AP": 0.5} if inner == (str, float) else {key: filled(inner[1], depth + 1)}
    if origin in (types.UnionType, typing.Union):
        return filled(next(part for part in inner if part is not type(None)), depth + 1)
    return {str: PAYLOAD, int: 1, float: 1.0, bool: False}[of]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("img", "iframe", "object") or any(name.startswith("on") for name, _ in attrs):
            self.found.append(f"{tag} {attrs}")


def tags(path: Path) -> list[str]:
    parser = Tags()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser.found


def alignment() -> AlignRun:
    made: AlignRun = filled(AlignRun)
    made.pictures = {}
    for backend in made.backends:
        backend.pictures = {}
    assert made.reference
    made.reference.spread = {"AP": [[1.0, 0.1]]}
    return made


def test_pages_hold_no_markup_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = alignment()
    align_page.save(tmp_path / "align.html", made)
    assert tags(tmp_path / "align.html") == []
    console().print(console_table(made), *against_tables(made))
    assert is_plain(capsys.readouterr().out)
    report: LadderReport = filled(LadderReport)
    report.training = made
    for level in ("ops", "forward", "steps", "free", "train", "ranks", "power"):
        for outcome in report.outcomes:
            outcome.level, report.levels = level, [level]
        ladder_page.save(tmp_path / "ladder.html", report)
        assert tags(tmp_path / "ladder.html") == [], level


def test_markup_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "x.html").write_text(f"<p>{PAYLOAD}</p>")
    assert len(tags(tmp_path / "x.html")) == 1
