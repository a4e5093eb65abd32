"""A model with the weights of two files, on one backend: `python -m portdet_convert.proof_child`, see `run_child`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from portdet import reference
from portdet.backends import load_backend, open_session
from portdet.errors import PortdetError
from portdet.lower.names import native_names
from portdet.models import Detector, load_model
from portdet.outputs import tensors
from portdet.processes.child import serve
from portdet.processes.scratch import scratch
from portdet.session import Backend, Group, Options, Recipe, Session
from portdet.spec.init import initial_weights
from portdet_convert import models
from portdet_convert.compare import gap, unlike
from portdet_convert.convert import read
from portdet_convert.files import open_weights
from portdet_convert.files.source import Array, Arrays, as_float32
from portdet_convert.yolov3_cfg import order

SEED = 0
PREDICTIONS = "predictions"
# The same weights can give other last bits in the next run: 18 predictions of PP-YOLO nano moved by 1e-7 after
# the first run of MindSpore 2.10 on a loaded CPU, and no more. What really differs does so in every attempt.
ATTEMPTS = 3


@dataclass(frozen=True)
class Apart:
    """The largest difference between outputs of one name, absolute and as a share of that output's largest value.

    `first` is the first output in the network's order that differs at all.
    """

    absolute: float
    relative: float
    first: str


def prove(
    backend_name: str, section: Mapping[str, Any], side: int, before: Path, after: Path, file_format: str
) -> dict[str, Any]:
    """Outputs with the weights of `before` against those with the weights of `after`, and against float64.

    `after` is read by the framework's own loader where the file is of its format. What a file lacks, the head of a
    backbone, gets the same fresh weights both times, and the outputs behind it are left out.
    """
    detector, backend = load_model(section, imgsz=side, batch=1), load_backend(backend_name)
    sizes = models.sizes(detector.fields)
    images = np.random.Generator(np.random.Philox(SEED)).random((1, 3, side, side), np.float32)
    fresh = initial_weights(detector.graph, SEED)
    given = _float32(read(before, order(before, None, *sizes))[1].arrays)
    whole = len(given) == len(fresh)
    with scratch() as folder:
        session = _session(detector, backend_name, folder)
        version = session.facts().get(backend_name, "")
        found = read(after, order(after, None, *sizes))[1]
        if backend.file_format == file_format:
            native, bits = _native(backend, after)
            names = native_names(detector.graph, backend.target)
            if not all(names[name] in native for name in given):  # written in another program's names
                names = {name: source for name, (source, _) in found.origin.items()}
            loaded = {name: native[names[name]] for name in given if names.get(name) in native}
        else:
            loaded, bits = _float32(found.arrays), {}
        if missing := [name for name in given if name not in loaded]:
            raise PortdetError(f"{len(missing)} tensors did not come through, first '{missing[0]}'", where=str(after))
        for _ in range(ATTEMPTS):
            first = _outputs(session, {**fresh, **given}, images, whole)
            _require_finite(first, before)
            second = _outputs(session, {**fresh, **loaded}, images, whole)
            difference = apart(second, first)
            if not difference.first:
                break
        session.close()
    exact = _reference(detector, {**fresh, **given}, images, set(first))
    what = "modules and predictions" if whole else "modules of the backbone, as the file has no head"
    return {
        "version": version,
        "outputs": f"outputs of {len(first)} {what}",
        "difference": asdict(difference),
        "reference": asdict(apart(second, exact, exactly=False)),
        **bits,
    }


def _session(detector: Detector, backend: str, folder: Path) -> Session:
    one = next(name for name, info in detector.graph.weights().items() if info.trainable)
    recipe = Recipe((Group((one,), 0.0),))  # nothing is trained, but torch's optimiser takes no empty list
    return open_session(detector, backend, recipe, Options(mode="eager"), folder)


def _outputs(session: Session, weights: Arrays, images: Array, whole: bool) -> Arrays:
    """Every module's output in the network's order, then the predictions; those of the backbone if not `whole`."""
    session.load_weights(weights)
    found = session.activations(images)
    if whole:
        return {**found, PREDICTIONS: session.predict(images)}
    return {path: array for path, array in found.items() if path.startswith("backbone.")}


def _require_finite(found: Arrays, where: Path) -> None:
    """Predictions may overflow (a width is an exponential), modules may not: nothing behind them could be compared."""
    for path, array in found.items():
        if path != PREDICTIONS and not np.isfinite(array).all():
            raise PortdetError(
                f"with these weights the output of {path} is not finite, so nothing behind it can be compared",
                where=str(where),
                fix="look at them with `portdet weights show`, or convert without --check",
            )


def apart(got: Arrays, want: Arrays, *, exactly: bool = True) -> Apart:
    """The largest differences over all outputs; `exactly`: of bits, else of values."""
    absolute = relative = 0.0
    first = ""
    for name, array in want.items():
        if got[name].shape != array.shape:
            return Apart(math.inf, math.inf, first or name)
        found = gap(got[name] if exactly else got[name].astype(np.float64), array)
        if found is not None:
            first = first or name
            absolute, relative = max(absolute, found.absolute), max(relative, found.relative)
    return Apart(absolute, relative, first)


def _native(backend: Backend, path: Path) -> tuple[Arrays, dict[str, Any]]:
    """What the framework's own loader reads, and how that compares with portdet's reader, name by name."""
    try:
        native = backend.load_file(path)
    except Exception as error:  # each framework has its own
        raise PortdetError(f"{backend.loader} does not read the file: {error}", where=str(path)) from None
    ours = open_weights(path).arrays
    return native, {"loader": backend.loader, "tensors": len(native), "unlike": unlike(native, ours)}


def _float32(arrays: Arrays) -> Arrays:
    return {name: as_float32(array) for name, array in arrays.items()}


def _reference(detector: Detector, weights: Arrays, images: Array, wanted: set[str]) -> Arrays:
    found: Arrays = {}

    def record(path: str, output: Any) -> None:
        found.update((n, np.asarray(a, np.float64)) for n, a in tensors(output, path, np.ndarray) if n in wanted)

    predictions, _ = reference.run(detector.graph, "predict", False, weights, {"images": images}, record=record)
    return {**found, PREDICTIONS: predictions} if PREDICTIONS in wanted else found


def answer(request: Any) -> dict[str, Any]:
    """`prove` for `run_child`."""
    before, after = Path(request["before"]), Path(request["after"])
    return prove(request["backend"], request["section"], request["side"], before, after, request["format"])


if __name__ == "__main__":
    serve(answer)
