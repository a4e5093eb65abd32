"""The state of a session: its weights and buffers, their momentum and their moving average, written once for all
frameworks. A session that exists has a whole one, before its first step and before anything is loaded into it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from portdet.errors import PortdetError, nearest
from portdet.outside import shown
from portdet.ranks import Place, shared
from portdet.session import Array, Arrays, Batch, Recipe
from portdet.shadow import Shadow

BUFFERS = (".running_mean", ".running_var")
"""Ends of the names of what training changes beside trained weights: batch norm's statistics."""


class Stateful(ABC):
    """A session's state, of the framework's own tensors. `_hold` is the last thing that its constructor calls.

    live: all weights and buffers; momenta: of the trained weights; both by canonical name, tensors with a `shape`.
    """

    place: Place
    recipe: Recipe
    live: dict[str, Any]
    momenta: dict[str, Any]
    shadow: Shadow | None

    @abstractmethod
    def _array(self, tensor: Any) -> Array:
        """A copy of a tensor in the host's memory."""

    @abstractmethod
    def _fill(self, tensors: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
        """Copy the arrays of their names into tensors, in place."""

    @abstractmethod
    def _average(self, start: Arrays) -> Shadow:
        """The moving average of `live` on this session's device, which starts from these values."""

    @abstractmethod
    def _gradients(self, batch: Batch) -> tuple[dict[str, float], Arrays]:
        """Losses and gradients of a training pass, which moves batch norm's statistics."""

    @abstractmethod
    def gather(self, value: Any) -> list[Any]:
        """See `portdet.session.Session`."""

    def _hold(self, live: dict[str, Any], momenta: dict[str, Any]) -> None:
        """Keep these tensors; the average, if the recipe has one, starts from what the weights are now."""
        self.live, self.momenta, self.shadow = live, momenta, None
        if self.recipe.ema:
            self.shadow = self._average(self._start())

    def _release(self) -> None:
        self.live, self.momenta, self.shadow = {}, {}, None

    def _start(self) -> Arrays:
        """What an average of the present weights starts as."""
        if self.recipe.ema_zero_start:
            return {name: np.zeros(tuple(tensor.shape), np.float32) for name, tensor in self.live.items()}
        return self.weights()

    def weights(self) -> Arrays:
        """See `portdet.session.Session`, as for the methods below."""
        return self._arrays(self.live)

    def load_weights(self, weights: Mapping[str, Array]) -> None:
        check_weights(weights, _shapes(self.live))
        if self.place.world > 1:
            self._check_ranks(weights)
        self._fill(self.live, weights)
        self._fill(self.momenta, {name: np.zeros(shape, np.float32) for name, shape in _shapes(self.momenta).items()})
        if self.shadow is not None:
            self.shadow.load(self._start())

    def state(self) -> Arrays:
        parts = {"weights": self.weights(), "momentum": self._arrays(self.momenta)}
        if self.shadow is not None:
            parts["ema"] = self.shadow.arrays()
        return {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        weights, momentum, average = split_state(state)
        if (self.shadow is not None) != bool(average):
            raise PortdetError("the state and this run disagree on keeping an EMA", fix="resume with the same ema.kind")
        check_weights(momentum, _shapes(self.momenta), "momentum of ")
        if self.shadow is not None:
            check_weights(average, _shapes(self.live), "EMA of ")
        self.load_weights(weights)
        self._fill(self.momenta, momentum)
        if self.shadow is not None:
            self.shadow.load(average)

    def losses_and_gradients(self, batch: Batch) -> tuple[dict[str, float], Arrays]:
        statistics = {name: tensor for name, tensor in self.live.items() if name.endswith(BUFFERS)}
        kept = self._arrays(statistics)
        try:
            return self._gradients(batch)
        finally:
            self._fill(statistics, kept)

    @contextmanager
    def ema_weights(self, correction: float = 1.0) -> Iterator[None]:
        if self.shadow is None:
            raise PortdetError("this run keeps no EMA", fix="set ema.kind")
        raw = self.weights()
        try:
            averages = self.shadow.arrays()
            self._fill(self.live, {name: array / array.dtype.type(correction) for name, array in averages.items()})
            yield
        finally:
            self._fill(self.live, raw)

    def _arrays(self, tensors: Mapping[str, Any]) -> Arrays:
        return {name: self._array(tensor) for name, tensor in tensors.items()}

    def _check_ranks(self, weights: Mapping[str, Array]) -> None:
        """Raise on every rank unless all were given the same weights."""
        told = self.gather({name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in weights.items()})
        for rank, theirs in enumerate(told):
            for name, one in told[0].items():
                if theirs.get(name) != one:
                    what = f"{shown(name)} differs between ranks 0 and {rank}"
                    raise shared(PortdetError(what, fix="give all ranks the same weights"))


def check_weights(given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], of: str = "") -> None:
    """Raise unless every weight is there, none is unknown, and shapes agree. shapes: by canonical name."""
    if missing := [name for name in shapes if name not in given]:
        first = missing[0]
        raise PortdetError(f"{len(missing)} weights missing, first {of}{shown(first)}", fix=nearest(first, given))
    if unknown := [name for name in given if name not in shapes]:
        first = unknown[0]
        raise PortdetError(f"{len(unknown)} unknown weights, first {of}{shown(first)}", fix=nearest(first, shapes))
    for name, shape in shapes.items():
        found = tuple(given[name].shape)
        if found != shape:
            raise PortdetError(f"{of}weight {shown(name)} is {shape} in the model, {found} in the file")


def split_state(state: Mapping[str, Array]) -> tuple[Arrays, Arrays, Arrays]:
    """`Session.state()` as weights, momentum and EMA by canonical name."""
    parts: dict[str, Arrays] = {"weights": {}, "momentum": {}, "ema": {}}
    for key, array in state.items():
        part, _, name = key.partition("/")
        if part not in parts:
            raise PortdetError(f"{shown(key)} is no part of a state", fix=nearest(part, parts))
        parts[part][name] = array
    return parts["weights"], parts["momentum"], parts["ema"]


def _shapes(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
