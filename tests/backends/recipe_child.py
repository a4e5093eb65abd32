"""Steps of each recipe on one backend: `python recipe_child.py IN OUT BACKEND MODE`. Writes <case>/<part>/<name>."""

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
from tests.backends.test_recipe_on_backends import CASES, DECAY, LR, MOMENTUM, STEPS, TRAINED


class Net(Module):
    """A body that may be frozen, and a head."""

    def __init__(self) -> None:
        self.conv, self.norm = Conv2d(3, 4, 3, 2, pads=(1, 1, 1, 1)), BatchNorm2d(4)
        self.head = Conv2d(4, 2, 1, bias=True)

    def predict(self, images: Any) -> Any:
        return self.head(ops.sigmoid(self.norm(self.conv(images))))

    def loss(self, images: Any, scores: Any) -> dict[str, Any]:
        y = self.head(ops.sigmoid(self.norm(self.conv(images))))
        return {"loss": ops.mean(y * y, axis=None) * ops.sum(scores, axis=None)}


def opened(backend: str, mode: str, case: str) -> Session:
    images, scores = ((2, 3, 8, 8), "float"), ((2, 1), "float")
    methods: Any = {"loss": (True, {"images": images, "scores": scores}), "predict": (False, {"images": images})}
    net, chosen = graph(Net(), methods), load_backend(backend)
    source = Source(emit(net, chosen.target, title="A body and a head."), Path(f"recipe_{backend}.py"))
    settings = CASES[case]
    trained = [[name for name in names if name not in settings.frozen] for names in TRAINED]
    groups = tuple(Group(tuple(names), decay) for names, decay in zip(trained, (DECAY, 0.0), strict=True))
    recipe = Recipe(
        groups, MOMENTUM, clip_norm=settings.clip_norm, clip_groups=settings.by_group, dynamic_scale=settings.scale > 1
    )
    return chosen.open_session(source, "Net", recipe, native_names(net, chosen.target), Options(mode=mode, threads=1))


def main() -> None:
    backend, mode = sys.argv[3:]
    given = dict(np.load(sys.argv[1]))
    images = given.pop("images")
    found: Arrays = {}
    for case, settings in CASES.items():
        session = opened(backend, mode, case)
        session.load_weights(given)
        for step in range(STEPS):
            none = np.zeros((2, 1, 4), np.float32)
            scores = np.ones((2, 1), np.float32)
            batch = Batch(images[step], none, np.zeros((2, 1), np.int32), np.zeros((2, 1), bool), np.arange(2), scores)
            assert not session.train_step(batch, StepValues(LR, settings.scale)).skipped
        found |= {f"{case}/{name}": array for name, array in session.state().items()}
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
