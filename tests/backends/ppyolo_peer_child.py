"""PaddleDetection's weights in one backend.

    ppyolo_peer_child.py IN OUT BACKEND MODE PRECISION SIZE FOLDER VARIANT...

FOLDER holds VARIANT.pdparams. Writes, below each variant's name: heads, predictions, losses and gradients, and of the
narrow ones the recipe's first training steps. SIZE 'faults' repeats what a planted fault changes, on the narrow ones.
Tables hold `ppyolo_peer.summary` in the order of `names`, or of `trained`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from portdet.backends import open_session
from portdet.models import Detector
from portdet.session import Array, Arrays, Batch, Group, Options, Recipe, Session, StepValues
from portdet.train.ema import Ema, ema
from portdet.train.groups import recipe
from portdet_convert import load_canonical
from tests.backends import ppyolo_peer as peer


def table(arrays: Arrays) -> Array:
    return np.stack([peer.summary(array) for _, array in sorted(arrays.items())])


def shapes(detector: Detector) -> dict[str, tuple[int, ...]]:
    return {name: info.shape for name, info in detector.graph.weights().items()}


@contextmanager
def opened(backend: str, options: Options, detector: Detector, trained: Recipe) -> Iterator[Session]:
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(detector, backend, trained, options, Path(folder))
        yield session
        session.close()


def terms(session: Session, batch: Batch) -> Arrays:
    """Losses and gradients."""
    losses, gradients = session.losses_and_gradients(batch)
    named = {f"losses/{name}": np.array(value) for name, value in losses.items()}
    return {**named, "gradients": table(gradients), "trained": np.array(sorted(gradients))}


def steps(session: Session, batch: Batch, average: Ema, rates: Array) -> Arrays:
    """Training steps, each followed by the evaluated average."""
    losses, weights, averages = [], [], []
    names = sorted(session.weights())
    for step, rate in enumerate(rates.tolist()):
        result = session.train_step(batch, StepValues(rate, ema_decay=average.decay(step)))
        losses.append(result.losses["loss"])
        weights.append(table(session.weights()))
        with session.ema_weights(average.correction(step + 1)):
            averages.append(table(session.weights()))
    tables = {"weights": np.stack(weights), "ema": np.stack(averages)}
    return {**tables, "step_losses": np.array(losses), "names": np.array(names)}


def ran(backend: str, options: Options, size: peer.Size, variant: str, path: Path) -> Arrays:
    detector, config = peer.model(variant, size), peer.config(variant)
    named, batch = shapes(detector), peer.batch(size, detector)
    given, report = load_canonical(path, named)
    assert len(report.loaded) == len(named)
    out: Arrays = {}
    with opened(backend, options, detector, recipe(config, named)) as session:
        session.load_weights(given)
        seen = session.activations(peer.images())
        out |= {name: array for name, array in seen.items() if name.startswith("output")}
        out["predictions"] = session.predict(peer.images())
        out |= terms(session, batch)
        if size == "narrow":
            session.load_weights(given)
            out |= steps(session, batch, ema(config.ema), peer.outputs(size)[f"{variant}/rates"])
    return out


def faults(backend: str, options: Options, variant: str, path: Path) -> Arrays:
    """What wrong inputs, a wrong head and wrong recipes give."""
    detector, config = peer.model(variant, "narrow"), peer.config(variant)
    named, batch, average = shapes(detector), peer.batch("narrow", detector), ema(config.ema)
    given, _ = load_canonical(path, named)
    rates = peer.outputs("narrow")[f"{variant}/rates"]
    right = recipe(config, named)
    decayed, plain = right.groups
    moved = tuple(name for name in decayed.names if name.endswith("conv_offset.bias"))
    fewer = tuple(name for name in decayed.names if name not in moved)
    recipes = {
        "decay of norms": replace(right, groups=(Group(decayed.names + plain.names, peer.DECAY),)),
        "no decay of offset biases": replace(
            right, groups=(Group(fewer, peer.DECAY), Group(plain.names + moved, 0.0))
        ),
        "no momentum": replace(right, momentum=0.0),
        "other clip": replace(right, clip_norm=0.0 if right.clip_norm else 35.0),
        "shadow from the weights": replace(right, ema_zero_start=False),
    }  # fmt: skip
    out: Arrays = {}
    assert batch.scores is not None
    assert batch.noise is not None
    wrong = {
        "no scores": replace(batch, scores=np.ones_like(batch.scores)),
        "other noise": replace(batch, noise=batch.noise[:, ::-1].copy()),
        "swapped images": replace(batch, images=batch.images[::-1].copy()),
    }
    with opened(backend, options, detector, right) as session:
        session.load_weights(given)
        out["predictions"] = session.predict(batch.images)
        for name, other in wrong.items():
            session.load_weights(given)
            out |= {f"{name}/{key}": value for key, value in terms(session, other).items()}
        session.load_weights(given)
        corrected = replace(average, kind="threshold_exact")
        out |= {f"other correction/{key}": value for key, value in steps(session, batch, corrected, rates).items()}
    for name, changed in recipes.items():
        with opened(backend, options, detector, changed) as session:
            session.load_weights(given)
            out |= {f"{name}/{key}": value for key, value in steps(session, batch, average, rates).items()}
    legacy = peer.model(variant, "narrow", coord_range="legacy")
    with opened(backend, options, legacy, right) as session:
        session.load_weights(given)
        seen = session.activations(peer.images())
        out |= {f"legacy/{name}": array for name, array in seen.items() if name.startswith("output")}
    return out


def main() -> None:
    _, target, backend, mode, precision, size, folder, *variants = sys.argv[1:]
    options = Options(mode=mode, threads=1, precision=precision)
    found: Arrays = {}
    for variant in variants:
        path = Path(folder, f"{variant}.pdparams")
        if size == "faults":
            one = faults(backend, options, variant, path)
        else:
            one = ran(backend, options, "full" if size == "full" else "narrow", variant, path)
        found |= {f"{variant}/{name}": array for name, array in one.items()}
    np.savez(target, **found)


if __name__ == "__main__":
    main()
