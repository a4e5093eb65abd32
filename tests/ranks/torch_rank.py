"""One rank of several in PyTorch, or the only process: `python torch_rank.py FOLDER MODEL MODE PRECISION [fault]`.

Writes FOLDER/N.npz, N its rank, or alone.npz: losses, gradients and norms of one step, and what 20 steps leave.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from portdet.backends import load_backend, open_session
from portdet.conformance.ranks import share
from portdet.models import Detector, load_model
from portdet.session import Arrays, Batch, Options, StepValues
from portdet.spec.init import initial_weights
from tests.ranks.rank_case import drawn, recipe_of

STEPS = 20
FAULTS = ("outside", "apart")
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "yolov3": ({"name": "yolov3", "classes": 3, "width": 1 / 16, "depths": (1, 1, 1, 1, 1)}, 64),
    # DropBlock normalises by each rank's own mask, in PaddleDetection too
    "ppyolo": ({"name": "ppyolo", "variant": "nano", "classes": 3, "drop_block": False}, 96),
}


def case(model: str) -> tuple[Detector, Arrays, Batch]:
    """A small detector, its weights and a batch."""
    section, side = MODELS[model]
    detector = load_model(section, imgsz=side, max_boxes=8)
    return detector, initial_weights(detector.graph, 7), drawn(7, side)


def main() -> None:
    folder, model, mode, precision, *faults = sys.argv[1:]
    assert set(faults) <= set(FAULTS)
    place = load_backend("torch").launcher.place()
    detector, weights, whole = case(model)
    options = Options(mode=mode, threads=1, precision=precision, place=place, sync_bn="apart" not in faults)
    source = Path(folder, f"source{place.world}-{place.rank}")
    session: Any = open_session(detector, "torch", recipe_of(detector), options, source)
    if "outside" in faults:  # of DistributedDataParallel's forward
        session.trainer = session.model
    session.load_weights(weights)
    batch = share(whole, place)
    losses, gradients = session.losses_and_gradients(batch)
    out: Arrays = {f"loss/{name}": np.array(value) for name, value in losses.items()}
    out |= {f"gradient/{name}": array for name, array in gradients.items()}
    session.train_step(batch, StepValues(0.0))  # moves the statistics alone
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
