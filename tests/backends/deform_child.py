"""Deformable convolution on one backend: `python deform_child.py IN OUT BACKEND MODE`.

Writes CASE/FORM/y and CASE/FORM/grad/NAME: d sum(y * cotangent) / d x, offset, mask and weight.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from portdet.backends import load_backend
from portdet.lower import emit
from portdet.session import Arrays, MethodCall, Options, Source
from tests.backends.deform_spec import CASES, FORMS, inputs, traced, weight


def main() -> None:
    backend, mode = sys.argv[3:]
    chosen, options = load_backend(backend), Options(mode=mode, threads=1)
    found: Arrays = {}
    for case in CASES:
        for form in FORMS:
            text = emit(traced(case, form), chosen.target, title="One convolution.")
            source = Source(text, Path(f"{case}_{form}.py"))
            given = inputs(case)
            cotangent = {"y": given.pop("cotangent")}
            call = MethodCall(source, "Net", "loss", given, weight(), tuple(given), cotangent)
            outs, grads = chosen.differentiate(call, options)
            found[f"{case}/{form}/y"] = outs["y"]
            found |= {f"{case}/{form}/grad/{name}": array for name, array in grads.items()}
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
