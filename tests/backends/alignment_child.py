"""One backend on the fixtures: `python alignment_child.py IN OUT BACKEND MODE [float64]`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from portdet.backends import open_session
from portdet.models import Detector
from portdet.session import Arrays, Batch, Group, Options, Recipe, Session, StepValues
from portdet.train.groups import decays
from tests.backends.harness import g1, smooth

# rates at which five steps stay comparable; the loss scales are powers of two, exact in float32
STEPS = [StepValues(lr, scale, decay) for lr, scale, decay in (
    (5e-6, 1.0, 0.5), (1e-5, 1024.0, 0.9), (7e-6, 1.0, 0.99), (5e-6, 512.0, 0.2), (3e-6, 1.0, 0.75),
)]  # fmt: skip


Fixture = tuple[Detector, Arrays, Batch]


def opened(fixture: Fixture, backend: str, mode: str, precision: str) -> Session:
    """A session on a fixture, its weights loaded."""
    detector, weights, _ = fixture
    trained = {name: info.shape for name, info in detector.graph.weights().items() if info.trainable}
    decayed = tuple(name for name, shape in trained.items() if decays(name, shape))
    plain = tuple(name for name in trained if name not in decayed)
    recipe = Recipe((Group(decayed, 2.0), Group(plain, 0.0, lr_scale=2.0)), momentum=0.9, ema=True)
    options = Options(mode=mode, threads=1, precision=precision)
    session = open_session(detector, backend, recipe, options, Path(f"{backend}_{mode}"))
    session.load_weights(weights)
    return session


def main() -> None:
    backend, mode, *rest = sys.argv[3:]
    precision = rest[0] if rest else "float32"
    fixture = smooth()
    _, weights, batch = fixture
    session = opened(fixture, backend, mode, precision)
    out: Arrays = {"predictions": session.predict(batch.images)}
    if mode == "eager":
        out |= prefixed("activations", session.activations(batch.images))
    out |= prefixed("gradients", session.losses_and_gradients(batch)[1])
    session.load_weights(weights)  # after something was compiled: it has to see them
    path = []
    for number, values in enumerate(STEPS):
        result = session.train_step(batch, values)
        assert not result.skipped
        path.append(result.losses["loss"])
        if number == 2:
            middle = session.state()
    out |= {"path": np.array(path), **prefixed("state", session.state())}
    with session.ema_weights(1.25):
        out["ema_predictions"] = session.predict(batch.images)
    assert all(array.tobytes() == out[f"state/weights/{name}"].tobytes() for name, array in session.weights().items())
    continued = opened(fixture, backend, mode, precision) if mode == "eager" else session
    continued.load_state(middle)
    again = [continued.train_step(batch, values).losses["loss"] for values in STEPS[3:]]
    out |= {"path_continued": np.array(again), **prefixed("continued", continued.state())}
    losses, _ = opened(g1(), backend, mode, precision).losses_and_gradients(g1()[2])
    out |= prefixed("losses", {name: np.array(value) for name, value in losses.items()})
    np.savez(sys.argv[2], **out)


def prefixed(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}/{name}": array for name, array in arrays.items()}


if __name__ == "__main__":
    main()
