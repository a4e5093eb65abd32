"""Configurations, overrides and names from outside: success or one bounded, printable error; nothing is left behind."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from pydantic.fields import FieldInfo

from portdet.cli import __main__ as cli
from portdet.cli.options import Number
from portdet.config import Config, load, sections
from portdet.errors import PortdetError
from portdet.models.ppyolo import Config as Ppyolo
from portdet.models.registry import check, load_model
from portdet.models.yolov3 import Config as Yolov3

TEXT = "model: {name: yolov3}\ndata: {batch: 2}\n"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def refused(folder: Path, text: str | bytes, *words: str) -> str:
    path = folder / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PortdetError) as error:
        load(str(path), words)
    said = str(error.value)
    assert len(said) < 2000
    assert said.replace("\n", "").isprintable()
    return said


FILES: dict[str, tuple[str | bytes, str]] = {
    "aliases that a message would write out": (LAUGHS + "train: {epochs: *i}\n", "aliases written out"),
    "no UTF-8": (b"\xff\xfe\x00photo", "cannot be read"),
    "nested deeply": ("model: " + "[" * 5000, "nested more than 64"),
    "a number": ("3", "expected sections (model:, data:, ...), found 3"),
    "nothing": ("", "found None"),
    "a key twice": (TEXT + "data: {batch: 3}\n", "line 3, column 1: 'data' stands twice in one map"),
    "a section that is a number": ("train: 3", "train = 3"),
    "a number for a key": ("1: 2", "keys should be strings"),
    "a long unknown key": (f"train:\n  ? {'k' * 5000}\n  : 1", "unknown key 'train.kkk"),
    "NaN": ("optim: {lr0: .nan}", "optim.lr0 = nan: input should be a finite number"),
    "infinite": ("optim: {loss_scale: .inf}", "finite number"),
    "a model of lists": ("model: {name: [yolov3]}", "unknown model ['yolov3']"),
    "an unhashable profile": ("model: {name: yolov3, profile: [a]}", "model.profile = ['a']"),
    "an unhashable variant": ("model: {name: ppyolo, variant: {}}", "model.variant = {}"),
    "_base_ that is a list": ("_base_: [a, b]", "_base_ is ['a', 'b']"),
    "_base_ of 300 characters": (f"_base_: {'b' * 300}", "cannot be read: File name too long"),
    "_base_ that is a device": ("_base_: /dev/zero", "not a regular file"),
    "an escape sequence": ('train: {name: "\\e[2J"}', "control characters"),
    "a class name of 201 characters": (f"data: {{names: [{'n' * 201}]}}", "at most 200"),
}


@pytest.mark.parametrize("case", FILES)
def test_hostile_files(case: str, tmp_path: Path) -> None:
    text, said = FILES[case]
    try:
        words = refused(tmp_path, text)
    except pytest.fail.Exception:  # the model's section is looked at with the model
        with pytest.raises(PortdetError) as error:
            check(load(str(tmp_path / "c.yaml")))
        words = str(error.value)
    assert said.lower() in words.lower()


WORDS = {
    "names=[" + ",".join(f"class_number_{i}" for i in range(35)) + ",": "not valid YAML",  # 600 characters, no file
    "epochs=" + "9" * 300: "an integer of 997 bits has over 63 bits",
    "epochs=" + "[" * 300: "nested more than 64",
    "epochs=!!python/name:os.system": "not taken",
    "k" * 300 + "=1": "unknown key 'kkk",
    "model." + "a." * 5000 + "b=1": "unknown key 'model.a",
    "imgsz=0": "greater than or equal to 16",
    "imgsz=100000": "less than or equal to 8192",
    "sizes=[64,-32]": "greater than or equal to 16",
    "name=../../x": "holds a path separator",
    "name=/tmp/x": "holds a path separator",
    "name=..": "folder's way up",
    'name="a\\nb"': "holds control characters",
    "name=" + "n" * 201: "over 200 bytes",
    'project="a\\nb"': "no control characters",
    'pretrained="a\\0b"': "no control characters",
    "imgsz=48": "data.imgsz has 48, which is no multiple of 32, the model's coarsest stride\n  -> use 32 or 64",
    "imgsz=16": "  -> use 32",
    "imgsz=120": "use 96 or 128",
    "sizes=[64,100]": "data.sizes has 100",
}


@pytest.mark.parametrize("word", WORDS, ids=lambda word: word[:20])
def test_hostile_words(word: str, tmp_path: Path) -> None:
    """By the command `train`, which must not have made its folder when it finds out."""
    path, runs = tmp_path / "c.yaml", tmp_path / "runs"
    path.write_text(TEXT)
    said = said_by("train", str(path), word, *(() if word.startswith("project") else (f"project={runs}",)))
    assert WORDS[word] in said
    assert sorted(tmp_path.iterdir()) == [path]


def said_by(*words: str) -> str:
    """What a command that must fail, with exit code 1, prints as its error."""
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        assert cli.run(words) == 1
    said = printed.getvalue()
    assert said.startswith("error: ")
    assert len(said) < 2000
    assert said.replace("\n", "").isprintable()
    return said


def test_a_section_that_is_none_with_a_word_for_it(tmp_path: Path) -> None:
    assert "'train' is 3, which leaves no place for 'epochs'" in refused(tmp_path, "train: 3", "epochs=3")
    assert "'model' is None" in refused(tmp_path, "model:", "model.width=1")


def test_thirty_five_class_names_are_a_word(tmp_path: Path) -> None:
    path, names = tmp_path / "c.yaml", [f"class number {i}" for i in range(35)]
    path.write_text(TEXT)
    words = f"names=[{', '.join(names)}]"
    assert len(words) > 255
    assert cli.run(["show", "config", str(path), words]) == 0
    assert load(str(path), [words]).data.names == names


@pytest.mark.parametrize("command", ["train", "val", "predict", "align", "show", "emit", "data", "bench"])
def test_words_that_are_no_file_of_any_system(command: str, tmp_path: Path) -> None:
    """Python's Path.is_file raises where a name has over 255 bytes."""
    long = "n" * 300
    more = {"predict": ["photo.jpg"], "show": [], "data": []}.get(command, [])
    first = {"show": ["show", "config"], "data": ["data", "show"]}.get(command, [command])
    for words in ([*first, long, *more], [*first, str(tmp_path / long), *more]):
        with contextlib.redirect_stderr(io.StringIO()) as printed, contextlib.redirect_stdout(io.StringIO()):
            assert cli.run(words) in (1, 2, 3)
        assert "rror: " in printed.getvalue()


def test_a_photograph_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00")
    said = said_by("train", str(tmp_path / "photo.jpg"))
    assert "photo.jpg: cannot be read: 'utf-8' codec" in said
    assert "name a configuration file" in said


def test_a_base_that_is_a_pipe_is_refused_unopened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "base.yaml")
    assert "not a regular file" in refused(tmp_path, "_base_: base.yaml")


def test_a_base_may_lie_above_but_not_in_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(TEXT)
    run = tmp_path / "run"
    run.mkdir()
    (run / "args.yaml").write_text("_base_: ../base.yaml\n")
    assert load(str(run / "args.yaml")).data.batch == 2
    for words in (["train", "--resume", str(run)], ["val", str(run), "--weights", str(run / "args.yaml")]):
        assert "a run folder's args.yaml is whole" in said_by(*words)


def numbers(of: Any) -> bool:
    """Whether values of a field's type are numbers, or hold some."""
    return of in (int, float) or any(numbers(part) for part in get_args(of))


def bounded(info: FieldInfo) -> bool:
    """Whether every number that the field takes has bounds on both sides, here or in the parts of its type."""

    def limits(metadata: Any) -> set[str]:
        return {name for m in metadata for name in ("ge", "gt", "le", "lt") if getattr(m, name, None) is not None}

    def inside(of: Any, known: set[str]) -> bool:
        known = known | limits(getattr(of, "__metadata__", ()))
        for m in getattr(of, "__metadata__", ()):
            known = known | limits(getattr(m, "metadata", ()))
        if of in (int, float):
            return bool(known & {"ge", "gt"}) and bool(known & {"le", "lt"})
        return all(inside(part, known) for part in get_args(of) if part is not Ellipsis and not isinstance(part, str))

    return inside(info.annotation, limits(info.metadata))


@pytest.mark.parametrize("section", [*sections().values(), Yolov3, Ppyolo])
def test_every_number_of_the_configuration_has_bounds(section: Any) -> None:
    fields = section.model_fields
    assert {name for name, info in fields.items() if numbers(info.annotation) and not bounded(info)} == set()
    assert section.model_config["allow_inf_nan"] is False


def test_the_bounds_are_looked_for() -> None:
    assert not bounded(FieldInfo.from_annotation(int))
    assert not bounded(FieldInfo.from_annotation(list[float]))
    assert numbers(Config.model_fields["data"].annotation) is False
    assert numbers(Yolov3.model_fields["anchors"].annotation)


def test_a_model_is_not_traced_at_a_side_that_it_cannot_take() -> None:
    with pytest.raises(PortdetError, match=r"data\.imgsz has 100"):
        load_model({"name": "yolov3", "width": 0.125}, imgsz=100)


def number_options() -> list[tuple[str, str, Any]]:
    """Command, option and type of every option that takes a number."""
    found = []
    queue: list[tuple[tuple[str, ...], click.Command]] = [((), cli.portdet)]
    while queue:
        words, command = queue.pop()
        if isinstance(command, click.Group):
            context = click.Context(command)
            queue += [
                ((*words, n), c) for n in command.list_commands(context) if (c := command.get_command(context, n))
            ]
        for param in command.params:
            if isinstance(param.type, click.types.IntParamType | click.types.FloatParamType):
                found.append((" ".join(words), param.opts[0], param.type))
    return found


def test_every_number_of_the_command_line_has_bounds() -> None:
    options = number_options()
    assert {"--margin", "--score", "--depth", "--steps", "--size", "--rtol"} <= {option for _, option, _ in options}
    for words, option, kind in options:
        assert isinstance(kind, click.IntRange | Number), (words, option)
        assert kind.min is not None, (words, option)
        assert kind.max is not None, (words, option)
    with pytest.raises(click.BadParameter, match="nan is no number"):
        Number(0, 1).convert("nan", None, None)
