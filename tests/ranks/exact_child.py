"""The gradients of a case in float64, by torch, in one process: `python exact_child.py MODEL OUT.npz`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from portdet.backends import open_session
from portdet.session import Options
from tests.ranks.rank_case import case, recipe_of

if __name__ == "__main__":
    model, out = sys.argv[1:]
    detector, weights, batch = case(model)
    options = Options(mode="eager", precision="float64", threads=1)
    session = open_session(detector, "torch", recipe_of(detector), options, Path(out).parent / "exact")
    session.load_weights(weights)
    _, gradients = session.losses_and_gradients(batch)
    np.savez(out, **{f"gradient/{name}": array for name, array in gradients.items()})
