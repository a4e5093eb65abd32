"""PP-YOLO's loss on one backend: `python ppyolo_child.py IN OUT BACKEND MODE`, the inputs of `Net.loss` in IN.

Writes out/<what `Net.loss` returns> and grad/<head>: d loss / d head.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from portdet.backends import load_backend
from portdet.lower import emit
from portdet.session import MethodCall, Options, Source
from tests.backends.ppyolo_spec import HEADS, traced


def main() -> None:
    backend, mode = sys.argv[3:]
    inputs = dict(np.load(sys.argv[1]))
    classes = inputs["head32"].shape[1] // 3 - 6
    text = emit(traced(inputs, classes=classes), load_backend(backend).target, title="PP-YOLO's loss.")
    source = Source(text, Path(f"heads_{backend}.py"))
    call = MethodCall(source, "Net", "loss", inputs, {}, tuple(HEADS), {"loss": np.ones((), np.float32)})
    outs, grads = load_backend(backend).differentiate(call, Options(mode=mode, threads=1))
    named = {f"out/{name}": array for name, array in outs.items()}
    np.savez(sys.argv[2], **named, **{f"grad/{name}": array for name, array in grads.items()})


if __name__ == "__main__":
    main()
