"""Configuration keys as options, and whom an error of theirs blames."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from portdet.cli import __main__ as cli
from portdet.cli.options import ConfigCommand
from portdet.config import load, sections
from portdet.errors import PortdetError

BOOLEANS = [(s, k) for s, cls in sections().items() for k, info in cls.model_fields.items() if info.annotation is bool]


@click.command(cls=ConfigCommand)
@click.argument("config")
@click.argument("more", nargs=-1)
@click.option("--json", "as_json", is_flag=True)
def probe(config: str, more: tuple[str, ...], as_json: bool, overrides: tuple[str, ...]) -> None:
    click.echo(f"{config} {list(more)} {as_json} {list(overrides)}")


def said(*words: str) -> str:
    done = CliRunner().invoke(probe, list(words))
    return done.output.strip()


@pytest.mark.parametrize("key", sorted({key for _, key in BOOLEANS}))
def test_every_boolean_takes_every_form(key: str) -> None:
    flag = f"--{key.replace('_', '-')}"
    for words, value in (
        ([flag], "true"), ([flag, "true"], "true"), ([flag, "false"], "false"), ([flag, "False"], "False"),
        ([f"{flag}=false"], "false"), ([f"{key}=false"], "false"), ([flag, "off"], "off"),
    ):  # fmt: skip
        wanted = f"CONFIG [] False ['{key}={value}']"
        assert said("CONFIG", *words) == said(*words, "CONFIG") == wanted, words
    assert said(f"--no-{key.replace('_', '-')}", "CONFIG") == f"CONFIG [] False ['{key}=false']"
    assert f"takes no value: write --no-{key.replace('_', '-')}" in said("CONFIG", f"--no-{key.replace('_', '-')}=true")
    assert said(flag, "CONFIG", "true") == f"CONFIG ['true'] False ['{key}=true']", "a word later on is the command's"


@pytest.mark.parametrize(("section", "key"), BOOLEANS)
def test_every_form_is_the_value(section: str, key: str) -> None:
    for word, value in (("true", True), ("False", False), ("off", False), ("yes", True)):
        assert getattr(getattr(load("yolov3_scenes", [f"{section}.{key}={word}"]), section), key) is value


@pytest.mark.parametrize("words", [["--model.width=0.5"], ["--model.width", "0.5"], ["model.width=0.5"]])
def test_fields_of_the_model(words: list[str]) -> None:
    assert said("CONFIG", *words) == "CONFIG [] False ['model.width=0.5']"


def test_a_flag_that_nobody_knows() -> None:
    assert "Did you mean '--epochs'?" in said("CONFIG", "--epohs", "3")
    assert "No such option '--amp'" in said("CONFIG", "--amp")
    assert "mean" not in said("CONFIG", "--amp")


FILE = "model: {name: yolov3}\ntrain: {epochs: 3}\naugment: {kind: ppyolo}\n"


@pytest.mark.parametrize(
    ("words", "text", "blamed"),
    [
        (["epochs=many"], FILE, "command line: train.epochs = 'many'"),
        (["train.epochs=many"], FILE, "command line: train.epochs"),
        (["optim.loss_scale=x"], FILE, "command line: optim.loss_scale"),
        (["augment.scale=[1,x]"], FILE, "command line: augment.scale.1 = 'x'"),
        (["names=[a: 1]"], FILE, "command line: data.names.0"),
        (["epochs=[1"], FILE, "command line: 'epochs': not valid YAML"),
        (["jitter=0.1"], FILE, "FILE and command line: augment"),
        (["lr0=0.1"], FILE.replace("3", "many"), "FILE: train.epochs = 'many'"),
        (["epochs=2"], FILE.replace("3", "many"), ""),
        ([], FILE.replace("epochs", "epohs"), "FILE: unknown key 'train.epohs'"),
    ],
)
def test_the_one_who_said_it_is_blamed(words: list[str], text: str, blamed: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    if not blamed:
        load(str(path), words)
        return
    with pytest.raises(PortdetError) as caught:
        load(str(path), words)
    assert str(caught.value).startswith(blamed.replace("FILE", str(path)))


@pytest.mark.parametrize(
    ("word", "advice"),
    [
        ("amp=1", "unknown key 'amp'\n  -> `portdet help config` lists all keys"),
        ("data=x", "'data' is a section, not a key\n  -> write data.KEY=VALUE; see `portdet help config data`"),
        ("model=x", "'model' is a section, not a key\n  -> write model.KEY=VALUE; see `portdet help model NAME`"),
        ("train.lr0=1", "unknown key 'train.lr0'\n  -> did you mean 'optim.lr0'?"),
    ],
)
def test_advice_that_helps(word: str, advice: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["show", "config", "yolov3_scenes", word]) == 1
    assert advice in capsys.readouterr().err
    assert cli.run(["help", "config", "data"]) == 0
