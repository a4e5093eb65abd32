"""Fifty steps with a moving average on one backend: `python ema_child.py IN OUT BACKEND MODE`.

Writes <kind>/weights/<name> (50, ...), the weights after each step, and <kind>/average/<name>, what is evaluated then.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from portdet import ops
from portdet.backends import load_backend
from portdet.ir.trace import graph
from portdet.lower import emit
from portdet.lower.names import native_names
from portdet.session import Arrays, Batch, Group, Options, Recipe, Session, Source, StepValues
from portdet.spec import BatchNorm2d, Conv2d, Module
from portdet.train.ema import Ema
from tests.backends.test_ema_trace import KINDS, STEPS


class Net(Module):
    """A convolution and a norm: weights, a bias and statistics."""

    def __init__(self) -> None:
        self.conv, self.norm = Conv2d(3, 4, 3, 2, pads=(1, 1, 1, 1)), BatchNorm2d(4)

    def predict(self, images: Any) -> Any:
        return ops.leaky_relu(self.norm(self.conv(images)), slope=0.1)

    def loss(self, images: Any, scores: Any) -> dict[str, Any]:
        y = ops.leaky_relu(self.norm(self.conv(images)), slope=0.1)
        return {"loss": ops.mean(y * y, axis=None) * ops.sum(scores, axis=None)}


def opened(backend: str, mode: str, average: Ema) -> Session:
    images, scores = ((2, 3, 8, 8), "float"), ((2, 1), "float")
    methods: Any = {"loss": (True, {"images": images, "scores": scores}), "predict": (False, {"images": images})}
    net, chosen = graph(Net(), methods), load_backend(backend)
    source = Source(emit(net, chosen.target, title="A net with an average."), Path(f"ema_{backend}.py"))
    trained = tuple(name for name, info in net.weights().items() if info.trainable)
    recipe = Recipe((Group(trained, 0.0),), momentum=0.9, ema=True, ema_zero_start=average.zero_start)
    return chosen.open_session(source, "Net", recipe, native_names(net, chosen.target), Options(mode=mode, threads=1))


def run(session: Session, average: Ema, start: Arrays) -> tuple[list[Arrays], list[Arrays]]:
    """The weights and the evaluated averages after each step."""
    session.load_weights(start)
    random = np.random.default_rng(1)
    weights, averages = [], []
    for step in range(STEPS):
        images = random.normal(size=(2, 3, 8, 8)).astype(np.float32)
        none = np.zeros((2, 1, 4), np.float32)
        scores = np.ones((2, 1), np.float32)
        batch = Batch(images, none, np.zeros((2, 1), np.int32), np.zeros((2, 1), bool), np.arange(2), scores)
        session.train_step(batch, StepValues(0.05, ema_decay=average.decay(step)))
        weights.append(session.weights())
        with session.ema_weights(average.correction(step + 1)):
            averages.append(session.weights())
    return weights, averages


def main() -> None:
    backend, mode = sys.argv[3:]
    start = dict(np.load(sys.argv[1]))
    found: Arrays = {}
    for kind, average in KINDS.items():
        weights, averages = run(opened(backend, mode, average), average, start)
        for part, arrays in (("weights", weights), ("average", averages)):
            found |= {f"{kind}/{part}/{name}": np.stack([one[name] for one in arrays]) for name in start}
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
