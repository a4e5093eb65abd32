"""The loop with a real backend: a small YOLOv3 in PyTorch, stopped within an epoch, ends with the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from portdet.backends import open_session
from portdet.config import Config
from portdet.data import open_datasets
from portdet.data.loader import TrainLoader
from portdet.models import load_model
from portdet.session import Options, Session
from portdet.spec.init import initial_weights
from portdet.train import checkpoint
from portdet.train.groups import recipe
from portdet.train.loop import Trainer
from tests.train.fakes import files, settings

MODEL = {"name": "yolov3", "classes": 3, "width": 0.0625, "depths": [1, 1, 1, 1, 1]}
DATA = {"train_count": 6, "scene_size": 64, "batch": 2, "sizes": [64, 96], "imgsz": 64, "workers": 0}


def run(folder: Path, kind: str, limit: int, resume: bool = False) -> Trainer:
    words = {**{f"data__{k}": v for k, v in DATA.items()}, **{f"model__{k}": v for k, v in MODEL.items()}}
    config: Config = settings(train__epochs=2, train__max_steps=limit, ema__kind=kind, **words)
    detector = load_model(config.model, imgsz=64)
    shapes = {name: info.shape for name, info in detector.graph.weights().items()}
    session = open_session(detector, "torch", recipe(config, shapes), Options(threads=1), folder)
    session.load_weights(initial_weights(detector.graph, 0))
    train, _ = open_datasets(config.data, 0)

    def weight_sum(live: Session, epoch: int) -> dict[str, float]:
        return {"AP": float(sum(abs(value).sum() for value in live.weights().values()))}

    with TrainLoader(train, config, mean=[0.5] * 3, std=[0.2] * 3, seed=0) as loader:
        trainer = Trainer(config, session, loader, folder, validate=weight_sum)
        if resume:
            trainer.resume()
        trainer.run()
    return trainer


@pytest.mark.parametrize("kind", ["exponential", "threshold"])
def test_resume_is_bit_identical_in_torch(tmp_path: Path, kind: str) -> None:
    whole = run(tmp_path / "whole", kind, 0)
    run(tmp_path / "halves", kind, 4)
    halves = run(tmp_path / "halves", kind, 0, resume=True)
    assert files(halves.folder) == files(whole.folder)
    one, two = (checkpoint.load_state(t.last)[0] for t in (whole, halves))
    assert {"weights", "momentum", "ema"} == {name.partition("/")[0] for name in one}
    assert {k: v.tobytes() for k, v in one.items()} == {k: v.tobytes() for k, v in two.items()}
    best, about = checkpoint.load_weights(whole.best)
    assert best.keys() == whole.session.weights().keys()
    assert about["weights"] == kind
