"""When a run is scored, and what counts as a score: max_steps ends a run as its last epoch would, and an AP without
ground truth is none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from portdet.report.results import read
from portdet.train import checkpoint
from portdet.train.loop import Outcome, Trainer
from tests.train.fakes import FakeLoader, FakeSession, files, resumed, rows, score, settings, train


class Notes:
    """Keeps what the loop tells."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def step(self, epoch: int, step: int, losses: Any) -> None:
        pass

    def note(self, text: str) -> None:
        self.said.append(text)

    def validation(self) -> Any:
        from contextlib import nullcontext

        return nullcontext()


@pytest.mark.parametrize("limit", [1, 2, 5, 7, 10, 15])
def test_a_run_that_max_steps_ends_is_scored(limit: int, tmp_path: Path) -> None:
    """1, 2, 7: within an epoch of five steps; 5, 10: at the end of one; 15: of the last."""
    trainer, session = train(tmp_path, settings(train__max_steps=limit))
    trainer.run()
    last = read(tmp_path / "results.csv")[-1]
    assert (last["epoch"], last["step"]) == (-(-limit // 5), limit)
    with session.ema_weights():
        assert last["AP"] == score(session, 0)["AP"]
    losses = [float(row["loss"]) for row in rows(tmp_path / "steps.csv")][limit - 1 - (limit - 1) % 5 :]
    assert last["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-12)
    arrays, about = checkpoint.load_weights(trainer.best)
    if limit <= 5:  # there is no other
        assert about["metrics"]["AP"] == last["AP"]
        with session.ema_weights():
            assert arrays["head.weight"] == session.weights()["head.weight"]


@pytest.mark.parametrize(
    "words", [{}, {"eval__every": 2}, {"eval__start": 2}, {"eval__start": 3}, {"train__patience": 1}]
)
@pytest.mark.parametrize("limits", [(1,), (2, 3), (5,), (4, 5, 6), (7,), (10,), (9, 11, 14)])
def test_going_on_is_as_if_it_never_stopped(limits: tuple[int, ...], words: dict[str, Any], tmp_path: Path) -> None:
    """Weights, counters, logs, rows, best weights; with fewer validations, and with patience, which counts them."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = train(whole, settings(**words))[0].run()
    for limit in limits:
        config = settings(**words, train__max_steps=limit)
        ended = resumed(parts, config) if limit != limits[0] else train(parts, config)[0].run()
        assert (ended.reason, ended.steps) == ("max_steps", limit)
    assert resumed(parts, settings(**words)) == expected
    assert files(parts) == files(whole)
    states = [checkpoint.load_state(folder / "weights" / "last.safetensors") for folder in (whole, parts)]
    assert {k: v.tobytes() for k, v in states[0][0].items()} == {k: v.tobytes() for k, v in states[1][0].items()}
    for _, progress in states:
        progress.seconds = 0.0
    assert states[0][1] == states[1][1]
    best = [checkpoint.load_weights(folder / "weights" / "best.safetensors") for folder in (whole, parts)]
    assert best[0][1] == best[1][1]
    assert {k: v.tobytes() for k, v in best[0][0].items()} == {k: v.tobytes() for k, v in best[1][0].items()}


def test_the_best_weights_of_an_epoch_are_not_replaced_by_those_of_a_part(tmp_path: Path) -> None:
    def rising(session: Any, epoch: int) -> dict[str, float]:
        return {"AP": 0.1 * len(session.values_seen)}

    session = FakeSession()
    trainer = Trainer(settings(train__max_steps=7), session, FakeLoader(), tmp_path, validate=rising)
    outcome = trainer.run()
    assert checkpoint.load_weights(trainer.best)[1]["step"] == 5
    assert (outcome.best_epoch, outcome.best) == (0, 0.5)
    assert read(tmp_path / "results.csv")[-1]["AP"] == pytest.approx(0.7)


def test_no_validation_stays_none(tmp_path: Path) -> None:
    """eval.start above train.epochs, or nothing to validate with."""
    trainer, _ = train(tmp_path / "off", settings(train__max_steps=2, eval__start=4))
    trainer.run()
    assert "AP" not in read(tmp_path / "off" / "results.csv")[-1]
    bare = Trainer(settings(train__max_steps=2), FakeSession(), FakeLoader(), tmp_path / "bare")
    bare.run()
    assert [row["step"] for row in read(tmp_path / "bare" / "results.csv")] == [2]
    assert not bare.best.exists()


def undefined(at: dict[int, float], tmp_path: Path, **words: Any) -> tuple[Outcome, list[str], Trainer]:
    """Four epochs with AP .2, .3, .1, .1, but for those (from 1) of `at`."""

    def validate(session: Any, epoch: int) -> dict[str, float]:
        value = at.get(epoch + 1, (0.2, 0.3, 0.1, 0.1)[epoch])
        return {"AP": value, "AP50": value, "APs": -1.0}

    notes = Notes()
    trainer = Trainer(settings(train__epochs=4, **words), FakeSession(), FakeLoader(), tmp_path, validate=validate,
                      observer=notes)  # fmt: skip
    return trainer.run(), notes.said, trainer


@pytest.mark.parametrize("nothing", [-1.0, math.nan])
def test_an_undefined_ap_is_no_score(nothing: float, tmp_path: Path) -> None:
    outcome, said, trainer = undefined(dict.fromkeys(range(1, 5), nothing), tmp_path)
    assert (outcome.reason, outcome.best_epoch) == ("finished", -1)
    assert not trainer.best.exists()
    assert not any("best so far" in line or "AP" in line for line in said)
    for row in rows(tmp_path / "results.csv"):
        assert (row["AP"], row["AP50"], row["APs"]) == ("", "", "")


@pytest.mark.parametrize("nothing", [-1.0, math.nan])
def test_an_undefined_ap_among_others(nothing: float, tmp_path: Path) -> None:
    """Never the best, also as the first; nor does patience count it."""
    outcome, said, trainer = undefined({1: nothing}, tmp_path / "first")
    assert (outcome.best, outcome.best_epoch) == (0.3, 1)
    assert ["best so far" in line for line in said] == [False, True, False, False]
    outcome, _, trainer = undefined({3: nothing}, tmp_path / "late", train__patience=2)
    assert (outcome.reason, outcome.best_epoch, trainer.progress.stale) == ("finished", 1, 1)
    outcome, _, trainer = undefined({}, tmp_path / "none", train__patience=2)
    assert trainer.progress.stale == 2, "two epochs that were scored do count"
