"""What a session promises of `activations` and `losses_and_gradients`: `python contract_child.py IN OUT BACKEND MODE`.

OUT: outputs/<name>, every activation; apart, what losses_and_gradients changed; repeated, whether it says the same bits
twice; moved, what a training step of rate 0 changes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from portdet import ops
from portdet.backends import load_backend
from portdet.ir.graph import ModuleGraph
from portdet.ir.trace import graph
from portdet.lower import emit
from portdet.lower.names import native_names
from portdet.session import Arrays, Batch, Group, Options, Recipe, Source, StepValues
from portdet.spec import BatchNorm2d, Conv2d, Module


class Pair(Module):
    """A tuple of two tensors."""

    def __init__(self) -> None:
        self.conv, self.norm = Conv2d(3, 4, 3, pads=(1, 1, 1, 1)), BatchNorm2d(4)

    def forward(self, x: Any) -> Any:
        y = self.norm(self.conv(x))
        return y, ops.leaky_relu(y, slope=0.1)


class Three(Module):
    """A list of three, one of which it was given."""

    def __init__(self) -> None:
        self.conv = Conv2d(4, 2, 1, bias=True)

    def forward(self, x: Any, y: Any) -> Any:
        z = self.conv(x)
        return [z, x, ops.exp(y * 0.1)]


class Net(Module):
    """Modules that return a tuple, a list, and one tensor."""

    def __init__(self) -> None:
        self.pair, self.three, self.last = Pair(), Three(), Conv2d(2, 1, 1)

    def predict(self, images: Any) -> Any:
        x, y = self.pair(images)
        return self.last(self.three(x, y)[0])

    def loss(self, images: Any, scores: Any) -> dict[str, Any]:
        x, y = self.pair(images)
        z = self.last(self.three(x, y)[0])
        return {"loss": ops.mean(z * z, axis=None) * ops.sum(scores, axis=None)}


def traced() -> ModuleGraph:
    images, scores = ((2, 3, 6, 5), "float"), ((2, 1), "float")
    methods: Any = {"loss": (True, {"images": images, "scores": scores}), "predict": (False, {"images": images})}
    return graph(Net(), methods)


def drawn() -> tuple[Arrays, Batch]:
    random = np.random.default_rng(3)
    weights = {
        name: (random.normal(size=info.shape) + 2.0 * name.endswith("running_var")).astype(np.float32)
        for name, info in traced().weights().items()
    }
    weights = {name: np.abs(array) if name.endswith("running_var") else array for name, array in weights.items()}
    images, none = random.normal(size=(2, 3, 6, 5)).astype(np.float32), np.zeros((2, 1, 4), np.float32)
    scores = np.ones((2, 1), np.float32)
    return weights, Batch(images, none, np.zeros((2, 1), np.int32), np.zeros((2, 1), bool), np.arange(2), scores)


def main() -> None:
    backend, mode = sys.argv[3:]
    net, chosen = traced(), load_backend(backend)
    weights, batch = drawn()
    trained = tuple(name for name, info in net.weights().items() if info.trainable)
    recipe = Recipe((Group(trained, 0.1),), momentum=0.9, ema=True)
    source = Source(emit(net, chosen.target, title="Outputs of all kinds."), Path("net.py"))
    names, options = native_names(net, chosen.target), Options(mode=mode, threads=1)
    session = chosen.open_session(source, "Net", recipe, names, options)
    session.load_weights(weights)
    session.train_step(batch, StepValues(0.01, 1.0, 0.5))
    before = session.state()
    losses, gradients = session.losses_and_gradients(batch)
    after = session.state()
    again, same = session.losses_and_gradients(batch)
    found: Arrays = {
        "apart": np.array([key for key in before if after[key].tobytes() != before[key].tobytes()], str),
        "repeated": np.array(again == losses and all(a.tobytes() == same[n].tobytes() for n, a in gradients.items())),
        "gradients": np.array(sorted(gradients), str),
    }
    session.train_step(batch, StepValues(0.0, 1.0, 1.0))
    end = session.state()
    found["moved"] = np.array([k for k in end if k.startswith("weights/") and end[k].tobytes() != before[k].tobytes()])
    session.load_weights(weights)
    found |= {f"outputs/{name}": array for name, array in session.activations(batch.images).items()}
    session.close()
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
