"""What a run's files hold, and say they hold: `best` the divided average, `last` raw weights and the shadow itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors import safe_open

from portdet.models import load_model
from portdet.session import Arrays
from portdet.spec.init import initial_weights
from portdet.train import checkpoint
from portdet_convert.load import load_canonical
from portdet_convert.weights_command import weights
from tests.train.fakes import NAMES, FakeSession, settings, train

UPDATES = 15


def ran(folder: Path, kind: str) -> FakeSession:
    """Three epochs of five steps, each better than the one before; after each the average was in the model."""
    trainer, session = train(folder, settings(ema__kind=kind, ema__decay=0.9))
    trainer.validate = lambda _, epoch: {"AP": 0.1 * (epoch + 1)}
    trainer.run()
    return session


def remark(path: Path) -> str:
    with safe_open(path, "numpy") as file:
        return str(file.metadata()["portdet"])


def by_hand(folder: Path) -> Arrays:
    """PaddleDetection's shadow, from zero, of the weights after each step: the raw weights are those of a run without
    an average, stopped after each step."""
    shadow = {name: np.zeros(1) for name in NAMES}
    for step in range(UPDATES):
        trainer, session = train(folder / str(step), settings(ema__kind="none", train__max_steps=step + 1))
        trainer.run()
        d = min(0.9, (1 + step) / (10 + step))
        shadow = {name: d * shadow[name] + (1 - d) * session.w[name].astype(np.float64) for name in NAMES}
    return shadow


def test_last_holds_raw_weights_and_the_shadow_undivided(tmp_path: Path) -> None:
    session, shadow = ran(tmp_path / "run", "threshold"), by_hand(tmp_path / "plain")
    state, _ = checkpoint.load_state(tmp_path / "run" / "weights" / "last.safetensors")
    divisor = 1 - min(0.9, UPDATES / (9 + UPDATES)) ** UPDATES
    best, _ = checkpoint.load_weights(tmp_path / "run" / "weights" / "best.safetensors")
    for name in NAMES:
        np.testing.assert_array_equal(state[f"weights/{name}"], session.w[name])
        np.testing.assert_allclose(state[f"ema/{name}"], shadow[name], rtol=1e-6)
        np.testing.assert_allclose(best[name], shadow[name] / divisor, rtol=1e-6)
        assert abs(best[name] - session.w[name]).max() > 1e-3
        assert abs(state[f"ema/{name}"] - shadow[name] / divisor).max() > 1e-4  # it is not what PaddleDetection resumes


@pytest.mark.parametrize(
    ("kind", "best", "shadow"),
    [
        ("none", "raw weights", ""),
        (
            "threshold",
            "EMA of the weights (threshold, 15 updates, divided by 0.999132638)",  # 1 - (15 / 24) ** 15
            ", and the shadow of the EMA (threshold, 15 updates), not divided",
        ),
        (
            "exponential",
            "EMA of the weights (exponential, 15 updates, divided by 1)",
            ", and the shadow of the EMA (exponential, 15 updates), not divided",
        ),
    ],
)
def test_the_files_say_which_weights_they_hold(tmp_path: Path, kind: str, best: str, shadow: str) -> None:
    ran(tmp_path, kind)
    last = f"state of training after 15 steps: raw weights{shadow}"
    for name, words in (("best", f"{best} after 15 steps"), ("last", last)):
        path = tmp_path / "weights" / f"{name}.safetensors"
        assert checkpoint.held(remark(path)) == words
        shown = CliRunner().invoke(weights, ["show", str(path)], catch_exceptions=False)
        assert shown.output.rstrip().endswith(f" bytes, {words}")
    about = json.loads(remark(tmp_path / "weights" / "best.safetensors"))
    assert about["weights"] == ("raw" if kind == "none" else kind)


def test_whoever_loads_a_file_is_told(tmp_path: Path) -> None:
    """`portdet val --weights last.safetensors` scores raw weights, and says so."""
    graph = load_model({"name": "ppyolo", "variant": "nano"}, imgsz=96).graph
    arrays, config = initial_weights(graph, 0), settings(ema__kind="threshold")
    progress = checkpoint.Progress(step=15, ema_updates=15, config=checkpoint.config_values(config))
    state = {f"{part}/{name}": array for part in ("weights", "ema") for name, array in arrays.items()}
    checkpoint.save_state(tmp_path / "last.safetensors", state, progress)
    shapes = {name: info.shape for name, info in graph.weights().items()}
    report = load_canonical(tmp_path / "last.safetensors", shapes)[1]
    assert len(report.loaded) == len(shapes)
    said = (
        "state of training after 15 steps: raw weights, and the shadow of the EMA (threshold, 15 updates), not divided"
    )
    assert said in report.notes


@pytest.mark.parametrize("text", ["", "pt", "[1]", '{"step": 3}', '{"step": 3, "weights": "threshold"}', "null", "{"])
def test_text_of_others_is_left_alone(text: str) -> None:
    assert checkpoint.held(text) == ""
