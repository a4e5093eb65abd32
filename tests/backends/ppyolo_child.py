"""PP-YOLO's loss on one backend: `python ppyolo_child.py IN OUT BACKEND MODE`, the inputs of `Net.loss` in IN.

Writes out/<what `Net.loss` returns> and grad/<head>: d loss / d head.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from portdet.backends import load_backend
from portdet.lower import emit
from tests.backends.ops_child import mindspore, paddle, torch
from tests.backends.ppyolo_spec import HEADS, traced

RUN = {"torch": torch, "mindspore": mindspore, "paddle": paddle}


def main() -> None:
    backend, mode = sys.argv[3:]
    inputs = dict(np.load(sys.argv[1]))
    classes = inputs["head32"].shape[1] // 3 - 6
    source = Path(f"heads_{backend}.py")
    source.write_text(emit(traced(inputs, classes=classes), load_backend(backend).target, title="PP-YOLO's loss."))
    outs, grads = RUN[backend](source, {}, inputs, list(HEADS), {"loss": np.ones((), np.float32)}, mode == "compiled")
    named = {f"out/{name}": array for name, array in outs.items()}
    np.savez(sys.argv[2], **named, **{f"grad/{name}": array for name, array in grads.items()})


if __name__ == "__main__":
    main()
