"""What rounding alone does to each tensor of a program: measured on runs of the program against itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter

from portdet.align.compare import exact
from portdet.align.compare.distance import SMALL, Distance, distance, distances
from portdet.errors import PortdetError
from portdet.files import write_text
from portdet.outside import read_json

Array = NDArray[Any]
ULP = float(np.finfo(np.float32).eps)
"""The least noise that is assumed: a tensor that no perturbation moves may still differ in its last bit."""


@dataclass
class Noise:
    """A tensor's distances (see `Distance`) from the unperturbed run, one per self-run."""

    max_rel: list[float] = field(default_factory=list)
    rel_l2: list[float] = field(default_factory=list)


@dataclass
class Envelope:
    """Noise of every tensor by name, gathered run by run; only these figures are kept, never a run."""

    noise: dict[str, Noise] = field(default_factory=dict)
    runs: int = 0

    def add(self, reference: Mapping[str, Array], run: Mapping[str, Array]) -> None:
        """One more run of the reference under perturbed weights and inputs (or another thread count).

        Raises PortdetError where the two are not runs of one program.
        """
        if wrong := exact.names(reference, run):
            name, what = next(iter(wrong.items()))
            raise PortdetError(f"a self-run is not one of the reference: '{name}' {what}")
        small: dict[str, tuple[Array, Array]] = {}
        for name in reference:
            want, got = reference[name], run[name]
            if got.shape != want.shape:
                raise PortdetError(f"a self-run is not one of the reference: '{name}' {exact.values(got, want)}")
            if want.size > SMALL:
                self._note(name, distance(got, want))
            else:
                small[name] = got, want
        for name, apart in zip(small, distances(list(small.values())), strict=True):
            self._note(name, apart)
        self.runs += 1

    def _note(self, name: str, apart: Distance) -> None:
        noise = self.noise.setdefault(name, Noise())
        noise.max_rel.append(apart.max_rel)
        noise.rel_l2.append(apart.rel_l2)

    def tolerance(self, name: str) -> tuple[float, float]:
        """Largest max_rel and rel_l2 of the self-runs, at least one ulp."""
        noise = self.noise[name]
        return max([*noise.max_rel, ULP]), max([*noise.rel_l2, ULP])

    def save(self, path: Path) -> None:
        rows = {name: [noise.max_rel, noise.rel_l2] for name, noise in self.noise.items()}
        write_text(path, json.dumps({"runs": self.runs, "noise": rows}))

    @classmethod
    def load(cls, path: Path) -> Envelope:
        """Raises PortdetError for a file that `save` did not write."""
        table = read_json(Path(path), _FILE, "measure it anew", nan=True)
        return cls({name: Noise(*rows) for name, rows in table.noise.items()}, table.runs)


@dataclass
class _File:
    runs: Annotated[int, Field(ge=0)]
    noise: dict[str, tuple[list[float], list[float]]]


_FILE = TypeAdapter(_File)


class Median(Mapping[str, Array]):
    """The elementwise median of some runs of one program, computed tensor by tensor when asked for.

    Of three, a value that one run alone gets wrong (an activation on the other side of zero) does not show.
    """

    def __init__(self, runs: Sequence[Mapping[str, Array]]) -> None:
        for run in runs[1:]:
            if wrong := exact.names(runs[0], run):
                name, what = next(iter(wrong.items()))
                raise PortdetError(f"runs of one program differ: '{name}' {what}")
        self.runs = runs

    def __getitem__(self, name: str) -> Array:
        arrays = [np.asarray(run[name]) for run in self.runs]
        first = arrays[0]
        if len(arrays) == 1 or first.dtype.kind != "f" or any(array.shape != first.shape for array in arrays):
            return first
        if len(arrays) == 3:  # a tenth of the time of np.median
            a, b, c = arrays
            return np.asarray(np.maximum(np.minimum(a, b), np.minimum(np.maximum(a, b), c)))
        middle: Array = np.median(np.stack(arrays), axis=0).astype(first.dtype)
        return middle

    def __contains__(self, name: object) -> bool:
        return name in self.runs[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.runs[0])

    def __len__(self) -> int:
        return len(self.runs[0])


def false_alarms(rate: int, runs: int) -> str:
    """`rate` alarms in `runs` healthy held-out runs, with the exact 95 % bound for none."""
    bound = 1 - 0.05 ** (1 / runs) if runs else 1.0
    return f"{rate} of {runs} healthy runs raise an alarm" + ("" if rate else f" (95 %: below {bound:.1%} of all)")
