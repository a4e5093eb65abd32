"""Suggestions: the word that was meant, or none. The words are those of a day at the command line, by hand."""

from __future__ import annotations

import pytest

from portdet import errors
from portdet.cli.__main__ import COMMANDS
from portdet.config import sections
from portdet.errors import close, nearest

KEYS = {key for cls in sections().values() for key in cls.model_fields}
DOTTED = {f"{section}.{key}" for section, cls in sections().items() for key in cls.model_fields}
WEIGHTS = [f"backbone.layer{i}.{j}.conv1.norm.{leaf}" for i in (1, 2) for j in range(12) for leaf in ("weight", "bias")]


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("epohs", KEYS, ["epochs"]),
        ("epoch", KEYS, ["epochs"]),
        ("lr", KEYS, ["lr0"]),
        ("batch_size", KEYS, ["batch"]),
        ("weight-decay", KEYS, ["weight_decay"]),
        ("weightdecay", KEYS, ["weight_decay"]),
        ("devise", KEYS, ["device"]),
        ("Patience", KEYS, ["patience"]),
        ("max", KEYS, ["max_det", "max_boxes", "max_steps"]),
        ("optim.lr", DOTTED, ["optim.lr0"]),
        ("train.lr0", DOTTED, ["optim.lr0"]),
        ("tran", COMMANDS, ["train"]),
        ("emti", COMMANDS, ["emit"]),
        ("backbone.layer1.3.conv1.norm.weihgt", WEIGHTS, ["backbone.layer1.3.conv1.norm.weight"]),
        ("backbone.layer2.7.conv1", WEIGHTS, [f"backbone.layer2.7.conv1.norm.{leaf}" for leaf in ("bias", "weight")]),
        # what was said before, in turn: warmup, tau, bench, resize, and a tensor that has its own place
        ("amp", KEYS, []),
        ("data", KEYS, []),
        ("nosuch", COMMANDS, []),
        ("resume", KEYS, []),
        ("backbone.layer2.12.conv1.norm.weight", WEIGHTS, []),
        ("conv1.weight", ["conv2.weight", "conv10.weight"], []),
        ("layer1", ["layer10", "layer11"], []),
        ("fc.weight", ["a.weight", "b.weight", "c.weight", "d.weight"], []),
        ("backbone.layer2", ["backbone.layer1", "backbone.layer10"], []),
        ("optimizer", KEYS, []),
        ("", KEYS, []),
    ],
)
def test_what_was_meant(word: str, known: list[str], meant: list[str]) -> None:
    assert close(word, known) == meant


def test_in_words() -> None:
    assert nearest("epohs", KEYS) == "did you mean 'epochs'?"
    assert nearest("max", KEYS) == "did you mean 'max_det', 'max_boxes' or 'max_steps'?"
    assert nearest("sgd", ["a", "b"]) == "known: a, b"
    assert nearest("amp", KEYS, "see the manual") == "see the manual"
    assert nearest("sgd", ["a", "b"], "see the manual") == "known: a, b"


def test_every_key_finds_itself_with_a_letter_lost() -> None:
    """All of them but the shortest, which a lost letter makes unrecognisable."""
    short = [(key[:i] + key[i + 1 :], key) for key in sorted(KEYS) if len(key) > 4 for i in range(len(key))]
    lost = [(word, key) for word, key in short if word not in KEYS and key not in close(word, KEYS)]
    assert lost == []


def test_the_list_is_bounded() -> None:
    said = nearest("x", [f"{'y' * 1000}{i}" for i in range(10_000)])
    assert said.endswith(", ... (10000 in all)")
    assert len(said) < 1100


def test_many_long_names_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with 150,000 names: few of them are compared letter by letter."""
    asked: list[str] = []
    monkeypatch.setattr(errors, "_distance", lambda a, b, most: asked.append(b))
    assert close("a" * 150, [f"{'a' * 147}{chr(98 + i % 400)}{i}" for i in range(150_000)]) == []
    assert len(asked) <= 5000
