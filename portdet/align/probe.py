"""All that one training step of a session shows, level by level, under names that every backend shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from portdet.align.compare import perturb
from portdet.session import Array, Arrays, Batch, Session, StepValues

LEVELS = ("weights", "forward", "loss", "grad", "step")
IMAGES = 2
"""Of a batch, whose activations are looked at: an image's are its own in evaluation mode, and those of 8 images of 416
pixels in YOLOv3 are 4 GB."""
Put = Callable[[str, Array], None]


def probe(
    session: Session,
    state: Mapping[str, Array],
    batch: Batch,
    values: StepValues,
    put: Put,
    levels: Sequence[str] = LEVELS,
) -> None:
    """Load a whole `state` (see `Session.state`), then hand copies to `put`, in order: weights as the session holds
    them, activations and predictions in evaluation mode (of the first IMAGES images), losses and gradients in training
    mode, and the state after one step. With the reference's state of any step that is a teacher-forced step: nothing
    has time to grow. levels: what is asked for; nothing else is computed.

    The loss's parts come before their sum; gradients in the order of the backward pass, the last weight's first.
    """
    session.load_state(_with_own_momenta(session, state))
    if "weights" in levels:
        for name, array in session.weights().items():
            put(f"weights/{name}", array)
    if "forward" in levels:
        images = np.ascontiguousarray(batch.images[:IMAGES])
        for name, array in session.activations(images).items():
            put(f"forward/{name}", array)
        predictions = session.predict(images)
        put("forward/predict", predictions)
        # an untrained PP-YOLO predicts boxes of 8e13 pixels, beside which no score counts
        put("forward/predict.scores", np.ascontiguousarray(predictions[..., 4:]))
    if "loss" in levels or "grad" in levels:
        _backward(session, batch, put, levels)
    if "step" in levels:
        session.train_step(batch, values)
        for name, array in session.state().items():
            put(f"step/{name}", array)


def _with_own_momenta(session: Session, state: Mapping[str, Array]) -> Arrays:
    """The state, with momenta of just the weights that this session trains.

    One that trains others than the reference is to be told so by its gradients, and not refused when it loads a state.
    """
    own = {name: array for name, array in session.state().items() if name.startswith("momentum/")}
    shared = {name: array for name, array in state.items() if name in own or not name.startswith("momentum/")}
    return {**{name: np.zeros_like(array) for name, array in own.items()}, **shared}


def _backward(session: Session, batch: Batch, put: Put, levels: Sequence[str]) -> None:
    losses, gradients = session.losses_and_gradients(batch)
    if "loss" in levels:
        for name in sorted(losses, key="loss".__eq__):
            put(f"loss/{name}", np.array(losses[name], np.float32))
    if "grad" in levels:
        for name in reversed([name for name in session.weights() if name in gradients]):
            put(f"grad/{name}", gradients[name])


def perturbed(state: Mapping[str, Array], batch: Batch, seed: int) -> tuple[Arrays, Batch]:
    """State and images one ulp away; boxes stay, since targets may jump by a cell."""
    return perturb(state, seed), replace(batch, images=perturb({"images": batch.images}, seed)["images"])
