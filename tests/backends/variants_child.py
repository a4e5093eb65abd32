"""PP-YOLO's variants on one backend: `variants_child.py IN.npz OUT.npz BACKEND MODE PRECISION narrow|full VARIANT...`.

narrow: predictions, losses, all gradients. full, with PaddleDetection's weights: outputs of the heads, losses.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from portdet.backends import open_session
from portdet.session import Arrays, Batch, Group, Options, Recipe
from tests.convert.ppyolo_case import full
from tests.models.ppyolo_narrow import narrow


def ran(backend: str, options: Options, kind: str, variant: str) -> Arrays:
    detector, weights, inputs = (narrow if kind == "narrow" else full)(variant)
    trained = tuple(name for name, info in detector.graph.weights().items() if info.trainable)
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(detector, backend, Recipe((Group(trained, 0.0),)), options, Path(folder))
        session.load_weights(weights)
        out: Arrays = {"predictions": session.predict(inputs["images"])}
        if kind == "full":
            activations = session.activations(inputs["images"]).items()
            out |= {name: array for name, array in activations if name.startswith("output")}
        losses, gradients = session.losses_and_gradients(Batch(**inputs, image_ids=np.arange(2)))
        session.close()
    if kind == "narrow":
        out |= {f"gradients/{name}": array for name, array in gradients.items()}
    return out | {f"losses/{name}": np.array(value) for name, value in losses.items()}


def main() -> None:
    _, target, backend, mode, precision, kind, *variants = sys.argv[1:]
    found: Arrays = {}
    for variant in variants:
        options = Options(mode=mode, threads=1, precision=precision)
        found |= {f"{variant}/{name}": array for name, array in ran(backend, options, kind, variant).items()}
    np.savez(target, **found)


if __name__ == "__main__":
    main()
