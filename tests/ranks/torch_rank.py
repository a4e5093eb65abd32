"""One rank of several in PyTorch, or the only process: `python torch_rank.py FOLDER MODEL MODE PRECISION [fault]`.

Writes FOLDER/N.npz, N its rank, or alone.npz: losses, gradients and norms of one step, and what 20 steps leave.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from portdet.backends import load_backend, open_session
from portdet.lower.target import Target
from portdet.models import Detector, load_model
from portdet.ranks import Place
from portdet.session import Arrays, Batch, Group, Options, Recipe, StepValues
from portdet.spec.init import initial_weights
from portdet.train.groups import decays
from portdet_torch.target import TARGET, TARGET64

STEPS, COUNT = 20, 4
FAULTS = ("outside", "apart")
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "yolov3": ({"name": "yolov3", "classes": 3, "width": 1 / 16, "depths": (1, 1, 1, 1, 1)}, 64),
    # DropBlock normalises by each rank's own mask, in PaddleDetection too
    "ppyolo": ({"name": "ppyolo", "variant": "nano", "classes": 3, "drop_block": False}, 96),
}


def case(model: str) -> tuple[Detector, Arrays, Batch]:
    """A small detector, its weights and COUNT images with one to three boxes each."""
    section, side = MODELS[model]
    detector = load_model(section, imgsz=side, max_boxes=8)
    random = np.random.RandomState(7)
    images = random.randn(COUNT, 3, side, side).astype(np.float32)
    start = random.uniform(0, 0.5, (COUNT, 8, 2))
    boxes = np.concatenate([start, start + random.uniform(0.1, 0.45, (COUNT, 8, 2))], 2) * side
    valid = np.arange(8) < random.randint(1, 4, (COUNT, 1))
    labels = random.randint(0, 3, (COUNT, 8)).astype(np.int32) * valid
    boxes = (boxes * valid[..., None]).astype(np.float32)
    batch = Batch(images, boxes, labels, valid, np.arange(COUNT), scores=valid.astype(np.float32))
    return detector, initial_weights(detector.graph, 7), batch


def share(batch: Batch, place: Place) -> Batch:
    """Every world-th image from the rank's on, as the loader deals them out."""
    mine = slice(place.rank, None, place.world)
    return Batch(
        batch.images[mine], batch.boxes[mine], batch.labels[mine], batch.valid[mine], batch.image_ids[mine],
        None if batch.scores is None else batch.scores[mine],
    )  # fmt: skip


def recipe_of(detector: Detector) -> Recipe:
    """Two groups, clipped, with EMA."""
    shapes = {name: info.shape for name, info in detector.graph.weights().items() if info.trainable}
    heavy = tuple(name for name, shape in shapes.items() if decays(name, shape))
    light = tuple(name for name in shapes if name not in heavy)
    return Recipe((Group(heavy, 5e-4), Group(light, 0.0)), clip_norm=10.0, dynamic_scale=True, ema=True)


def main() -> None:
    folder, model, mode, precision, *faults = sys.argv[1:]
    assert set(faults) <= set(FAULTS)
    place = load_backend("torch").launcher.place()
    detector, weights, whole = case(model)
    options = Options(mode=mode, threads=1, precision=precision, place=place, sync_bn="apart" not in faults)
    target: Target = TARGET64 if precision == "float64" else TARGET
    source = Path(folder, f"source{place.world}-{place.rank}")
    session: Any = open_session(detector, "torch", recipe_of(detector), options, source, target)
    if "outside" in faults:  # of DistributedDataParallel's forward
        session.trainer = session.model
    session.load_weights(weights)
    batch = share(whole, place)
    losses, gradients = session.losses_and_gradients(batch)
    out: Arrays = {f"loss/{name}": np.array(value) for name, value in losses.items()}
    out |= {f"gradient/{name}": array for name, array in gradients.items()}
    out |= {f"norm/{name}": array for name, array in session.weights().items() if "running" in name}
    session.load_weights(weights)
    results = [session.train_step(batch, StepValues(1e-4, 256.0, 0.9)) for _ in range(STEPS)]
    if place.rank == place.world - 1:
        batch.images[0, 0, 0, 0] = np.inf  # one rank's gradients overflow: all skip
    results.append(session.train_step(batch, StepValues(1e-4, 256.0, 0.9)))
    out |= {
        "path": np.array([r.losses["loss"] for r in results[:-1]]),
        "skipped": np.array([r.skipped for r in results]),
    }
    out |= session.state()
    out["told"] = np.array(session.gather(place.rank))
    np.savez(Path(folder, f"{place.rank if place.world > 1 else 'alone'}.npz"), **out)
    session.close()


if __name__ == "__main__":
    main()
