"""One rank of several in MindSpore, or the only process: `python mindspore_rank.py FOLDER MODEL-MODE[-FAULT]...`.

Writes FOLDER/N.npz, N its rank, or alone.npz: of each case losses, gradients and norms of one step, and what some steps
leave.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from portdet.backends import load_backend, open_session
from portdet.conformance.ranks import share
from portdet.errors import PortdetError
from portdet.ranks import Place
from portdet.session import Arrays, Options, StepValues
from tests.ranks.rank_case import case, recipe_of

FAULTS = ("left", "apart")  # gradients are not exchanged; sync_bn is off
STEPS = {"eager": 3, "compiled": 20}  # an eager step of YOLOv3, however small, takes a second


def run(words: str, place: Place, folder: Path) -> Arrays:
    """All numbers of a case."""
    model, mode, *faults = words.split("-")
    assert set(faults) <= set(FAULTS)
    detector, weights, whole = case(model)
    batch = share(whole, place)
    options = Options(mode=mode, threads=1, place=place, sync_bn="apart" not in faults)
    source = folder / f"{words}{place.world}-{place.rank}"
    session = open_session(detector, "mindspore", recipe_of(detector, frozen=int(model == "yolov3")), options, source)
    if "left" in faults:
        leave_gradients_out()
    session.load_weights(weights)
    losses, gradients = session.losses_and_gradients(batch)
    out: Arrays = {f"loss/{name}": np.array(value) for name, value in losses.items()}
    out |= {f"gradient/{name}": array for name, array in gradients.items()}
    session.train_step(batch, StepValues(0.0))  # moves the statistics alone
    out |= {f"norm/{name}": array for name, array in session.weights().items() if "running" in name}
    session.load_weights(weights)
    values = StepValues(1e-5, 1024.0, 0.9)
    results = [session.train_step(batch, values) for _ in range(STEPS[mode])]
    out |= session.state()
    if not faults:
        images = whole.images.copy()
        images[1, 0, 0, 0] = np.inf  # of rank 1, whose gradients overflow: all skip
        results.append(session.train_step(share(replace(whole, images=images), place), values))
        after = session.state()
        assert all(out[name].tobytes() == after[name].tobytes() for name in after if "running" not in name)
        out["skipped"] = np.array([result.skipped for result in results])
    out["path"] = np.array([result.losses["loss"] for result in results[: len(results) - (not faults)]])
    session.close()
    return out


def leave_gradients_out() -> None:
    """The planted fault: every rank keeps its own gradients."""
    module: Any = sys.modules["portdet_mindspore.session"]
    average = module.average
    module.average = lambda values, gradients, place: (average(values, gradients, place)[0], gradients)


def meeting(place: Place, folder: Path) -> Arrays:
    """What is gathered; that different weights are refused."""
    detector, weights, _ = case("yolov3")
    options = Options(mode="eager", threads=1, place=place)
    session = open_session(detector, "mindspore", recipe_of(detector), options, folder / f"meeting{place.rank}")
    for number in range(10):
        told = session.gather({"rank": place.rank, "number": number})
        assert told == [{"rank": rank, "number": number} for rank in range(place.world)]
    out = {"large": np.stack(session.gather(np.full(1_000_000, place.rank)))}
    name = next(iter(weights))
    try:
        session.load_weights({**weights, name: weights[name] + np.float32(place.rank)})
    except PortdetError as error:
        out["refused"] = np.array(str(error))
    session.close()
    return out


def main() -> None:
    folder, cases = Path(sys.argv[1]), sys.argv[2:]
    place = load_backend("mindspore").launcher.place()
    out: Arrays = {}
    for words in cases:
        found = meeting(place, folder) if words == "meeting-eager" else run(words, place, folder)
        out |= {f"{words}/{name}": array for name, array in found.items()}
        print(f"{words} on rank {place.rank}", flush=True)
    np.savez(folder / f"{place.rank if place.world > 1 else 'alone'}.npz", **out)


if __name__ == "__main__":
    main()
