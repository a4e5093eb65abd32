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
from portdet.models import load_model
from portdet.models.backbones.darknet import DarkNet, Residual
from portdet.models.yolov3 import YoloBlock
from portdet.session import Batch, Group, Options, Recipe, StepValues


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
    recipe = Recipe((Group(kernels, float(given.get("decay", 0.0))), Group(rest, 0.0)), momentum=0.0)
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(detector, backend, recipe, Options(mode=mode, threads=1), Path(folder))
        session.load_weights(weights)
        batch = Batch(
            given["images"], given["boxes"], given["labels"], given["valid"], np.arange(2), given.get("scores")
        )
        out: dict[str, Any] = {"decoded": session.predict(batch.images)}
        if mode == "eager":
            out |= {f"act/{name}": value for name, value in session.activations(batch.images).items()}
            losses, gradients = session.losses_and_gradients(batch)
            out |= {f"grad/{name}": value for name, value in gradients.items()}
            out |= {f"gradloss/{name}": np.float64(value) for name, value in losses.items()}
        session.load_weights(weights)
        result = session.train_step(batch, StepValues(lr=float(given["lr"])))
        out |= {f"loss/{name}": np.float64(value) for name, value in result.losses.items()}
        out |= {f"after/{name}": value for name, value in session.weights().items()}
        again = session.train_step(batch, StepValues(lr=0.0))
        out["loss_after"] = np.float64(again.losses["loss"])
    np.savez(target, **out)


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
