"""One rank of several in Paddle, or the only process: `python paddle_rank.py FOLDER MODEL-MODE[-FAULT]...`.

Writes FOLDER/N.npz, N its rank, or alone.npz: of each case losses, gradients and norms of one step, and what some steps
leave.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from portdet.backends import load_backend, open_session
from portdet.errors import PortdetError
from portdet.models import Detector, load_model
from portdet.ranks import Place
from portdet.session import Arrays, Batch, Group, Options, Recipe, StepValues
from portdet.spec.init import initial_weights
from portdet.train.groups import decays
from tests.backends.harness import smooth

FAULTS = ("left", "apart")  # gradients are not exchanged; sync_bn is off
STEPS, COUNT, SIDE = 20, 4, 64


def case(model: str) -> tuple[Detector, Arrays, Batch]:
    """A small detector, its weights and COUNT images with one to three boxes each.

    Seeds of which no input of a ReLU is so near to 0 that its sign depends on the order of sums.
    """
    if model == "yolov3":
        detector, weights, _ = smooth()
        return detector, weights, drawn(2)
    # DropBlock normalises by each rank's own mask, in PaddleDetection too
    section: dict[str, Any] = {"name": "ppyolo", "variant": "nano", "classes": 3, "drop_block": False}
    detector = load_model(section, imgsz=SIDE, max_boxes=8)
    return detector, initial_weights(detector.graph, 20), drawn(20)


def drawn(seed: int) -> Batch:
    random = np.random.RandomState(seed)
    images = random.randn(COUNT, 3, SIDE, SIDE).astype(np.float32)
    start = random.uniform(0, 0.5 * SIDE, (COUNT, 8, 2))
    boxes = np.concatenate([start, start + random.uniform(0.1 * SIDE, 0.45 * SIDE, (COUNT, 8, 2))], 2)
    valid = np.arange(8) < random.randint(1, 4, (COUNT, 1))
    labels = random.randint(0, 3, (COUNT, 8)).astype(np.int32) * valid
    boxes = (boxes * valid[..., None]).astype(np.float32)
    return Batch(images, boxes, labels, valid, np.arange(COUNT), scores=valid.astype(np.float32))


def share(batch: Batch, place: Place) -> Batch:
    """Every world-th image from the rank's on, as the loader deals them out."""
    parts: dict[str, Any] = {name: array for name, array in vars(batch).items() if array is not None}
    return Batch(**{name: array[place.rank :: place.world] for name, array in parts.items()})


def recipe_of(detector: Detector, *, frozen: int = 0) -> Recipe:
    """Two groups, clipped, with EMA; the first `frozen` weights are in none."""
    shapes = {name: info.shape for name, info in detector.graph.weights().items() if info.trainable}
    shapes = dict(list(shapes.items())[frozen:])
    heavy = tuple(name for name, shape in shapes.items() if decays(name, shape))
    light = tuple(name for name in shapes if name not in heavy)
    return Recipe((Group(heavy, 5e-4), Group(light, 0.0)), clip_norm=10.0, dynamic_scale=True, ema=True)


def run(words: str, place: Place, folder: Path) -> Arrays:
    """All numbers of a case."""
    model, mode, *faults = words.split("-")
    assert set(faults) <= set(FAULTS)
    detector, weights, whole = case(model)
    batch = share(whole, place)
    options = Options(mode=mode, threads=1, place=place, sync_bn="apart" not in faults)
    source = folder / f"{words}{place.world}-{place.rank}"
    session: Any = open_session(detector, "paddle", recipe_of(detector, frozen=int(model == "yolov3")), options, source)
    if "left" in faults:
        session.ranks.average_gradients = lambda weights: None
    session.load_weights(weights)
    losses, gradients = session.losses_and_gradients(batch)
    out: Arrays = {f"loss/{name}": np.array(value) for name, value in losses.items()}
    out |= {f"gradient/{name}": array for name, array in gradients.items()}
    out |= {f"norm/{name}": array for name, array in session.weights().items() if "running" in name}
    session.load_weights(weights)
    values = StepValues(1e-5, 1024.0, 0.9)
    results = [session.train_step(batch, values) for _ in range(4 if faults else STEPS)]
    out |= session.state()
    images = whole.images.copy()
    images[1, 0, 0, 0] = np.inf  # of rank 1, whose gradients overflow: all skip
    results.append(session.train_step(share(replace(whole, images=images), place), values))
    after = session.state()
    assert all(out[name].tobytes() == after[name].tobytes() for name in after if "running" not in name)
    out["path"] = np.array([result.losses["loss"] for result in results[:-1]])
    out["skipped"] = np.array([result.skipped for result in results])
    session.close()
    return out


def meeting(place: Place, folder: Path) -> Arrays:
    """What is gathered; that different weights are refused."""
    detector, weights, _ = case("yolov3")
    session: Any = open_session(detector, "paddle", recipe_of(detector), Options(threads=1, place=place),
                                folder / f"meeting{place.rank}")  # fmt: skip
    start = time.monotonic()
    for number in range(100):
        assert session.gather({"rank": place.rank, "number": number}) == [
            {"rank": rank, "number": number} for rank in range(place.world)
        ]
    out = {"seconds": np.array(time.monotonic() - start)}
    time.sleep(float(os.environ.get("SLEEP", "0")) * place.rank)
    out["large"] = np.stack(session.gather(np.full(1_000_000, place.rank)))
    name = next(iter(weights))
    try:
        session.load_weights({**weights, name: weights[name] + np.float32(place.rank)})
    except PortdetError as error:
        out["refused"] = np.array(str(error))
    session.close()
    return out


def main() -> None:
    folder, cases = Path(sys.argv[1]), sys.argv[2:]
    place = load_backend("paddle").launcher.place()
    out: Arrays = {}
    for words in cases:
        found = meeting(place, folder) if words == "meeting-eager" else run(words, place, folder)
        out |= {f"{words}/{name}": array for name, array in found.items()}
    np.savez(folder / f"{place.rank if place.world > 1 else 'alone'}.npz", **out)


if __name__ == "__main__":
    main()
