"""All that one training step of a session shows, level by level, under names that every backend shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from portdet.align.compare import perturb
from portdet.session import Array, Arrays, Batch, Session, StepValues

LEVELS = ("weights", "forward", "loss", "grad", "step")
Put = Callable[[str, Array], None]


def probe(session: Session, state: Mapping[str, Array], batch: Batch, values: StepValues, put: Put) -> None:
    """Load a whole `state` (see `Session.state`), then hand copies to `put`, in order: weights as the session holds
    them, activations and predictions in evaluation mode, losses and gradients in training mode, and the state after
    one step. With the reference's state of any step that is a teacher-forced step: nothing has time to grow.

    The loss's parts come before their sum; gradients in the order of the backward pass, the last weight's first.
    """
    session.load_state(state)
    for name, array in session.weights().items():
        put(f"weights/{name}", array)
    for name, array in session.activations(batch.images).items():
        put(f"forward/{name}", array)
    put("forward/predict", session.predict(batch.images))
    losses, gradients = session.losses_and_gradients(batch)
    for name in sorted(losses, key="loss".__eq__):
        put(f"loss/{name}", np.array(losses[name], np.float32))
    for name in reversed([name for name in session.weights() if name in gradients]):
        put(f"grad/{name}", gradients[name])
    session.load_state(state)  # the batch's statistics went into the running ones
    session.train_step(batch, values)
    for name, array in session.state().items():
        put(f"step/{name}", array)


def perturbed(state: Mapping[str, Array], batch: Batch, seed: int) -> tuple[Arrays, Batch]:
    """State and images one ulp away; boxes stay, since targets may jump by a cell."""
    return perturb(state, seed), replace(batch, images=perturb({"images": batch.images}, seed)["images"])
