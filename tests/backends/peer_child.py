"""One backend on a peer's weights and batch: `python peer_child.py IN.npz OUT.npz BACKEND MODE`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from portdet import ops
from portdet.backends import open_session
from portdet.config import Config
from portdet.models import Detector, load_model
from portdet.models.backbones.darknet import DarkNet, Residual
from portdet.models.yolov3 import YoloBlock
from portdet.session import Array, Arrays, Batch, Group, Options, Recipe, StepValues
from portdet.train.ema import ema
from portdet.train.groups import recipe


def main() -> None:
    source, target, backend, mode = sys.argv[1:]
    with np.load(source) as stored:
        given = dict(stored)
    weights = {name.removeprefix("w/"): given[name] for name in given if name.startswith("w/")}
    if "one_way" in given:
        cut_side_ways()
    detector = load_model(json.loads(str(given["model"])), imgsz=128, max_boxes=given["boxes"].shape[1])
    trained = tuple(name for name, info in detector.graph.weights().items() if info.trainable)
    kernels = tuple(name for name in trained if weights[name].ndim == 4)
    rest = tuple(name for name in trained if weights[name].ndim != 4)
    plain = Recipe((Group(kernels, float(given.get("decay", 0.0))), Group(rest, 0.0)), momentum=0.0)
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(detector, backend, plain, Options(mode=mode, threads=1), Path(folder))
        session.load_weights(weights)
        batch = Batch(
            given["images"], given["boxes"], given["labels"], given["valid"], np.arange(2), given.get("scores")
        )
        out: dict[str, Any] = {"decoded": session.predict(batch.images)}
        out |= {f"act/{name}": value for name, value in session.activations(batch.images).items()}
        if mode == "eager":
            losses, gradients = session.losses_and_gradients(batch)
            out |= {f"grad/{name}": value for name, value in gradients.items()}
            out |= {f"gradloss/{name}": np.float64(value) for name, value in losses.items()}
        session.load_weights(weights)
        result = session.train_step(batch, StepValues(lr=float(given["lr"])))
        out |= {f"loss/{name}": np.float64(value) for name, value in result.losses.items()}
        out |= {f"after/{name}": value for name, value in session.weights().items()}
        again = session.train_step(batch, StepValues(lr=0.0))
        out["loss_after"] = np.float64(again.losses["loss"])
        session.close()
    if "rates" in given:
        out |= own_recipe(detector, backend, mode, weights, batch, given["rates"])
    np.savez(target, **out)


def own_recipe(
    detector: Detector, backend: str, mode: str, weights: Arrays, batch: Batch, rates: Array
) -> dict[str, Any]:
    """PaddleDetection's: losses of its first steps, and its moving average after them, as it is evaluated."""
    config = Config.model_validate(
        {"optim": {"weight_decay": 5e-4, "clip_norm": 35.0}, "ema": {"kind": "threshold", "decay": 0.9998}}
    )
    average = ema(config.ema)
    shapes = {name: info.shape for name, info in detector.graph.weights().items()}
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(detector, backend, recipe(config, shapes), Options(mode=mode, threads=1), Path(folder))
        session.load_weights(weights)
        losses = []
        for step, rate in enumerate(rates.tolist()):
            losses.append(session.train_step(batch, StepValues(rate, ema_decay=average.decay(step))).losses["loss"])
        with session.ema_weights(average.correction(len(rates))):
            kept = session.weights()
        session.close()
    return {"steps": np.array(losses), **{f"ema/{name}": value for name, value in kept.items()}}


def cut_side_ways() -> None:
    """Gradients along the convolutions alone, not through the sums and joins beside them."""
    backbone, block = DarkNet.forward, YoloBlock.forward

    def only_last(self: Any, images: Any) -> Any:
        *stages, last = backbone(self, images)
        return (*map(ops.stop_gradient, stages), last)

    def only_output(self: Any, x: Any) -> Any:
        route, output = block(self, x)
        return ops.stop_gradient(route), output

    def no_identity(self: Any, x: Any) -> Any:
        return self.conv2(self.conv1(x)) + ops.stop_gradient(x)

    Residual.forward, DarkNet.forward, YoloBlock.forward = no_identity, only_last, only_output  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
