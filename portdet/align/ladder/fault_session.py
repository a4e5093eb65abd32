"""A session with a fault at its edge: what goes into it or comes out of it is changed, whatever framework is inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from portdet.session import Array, Arrays, Batch, Session, StepResult, StepValues


@dataclass(frozen=True)
class Taken:
    """A step that was taken: the whole state before and after it, and what it was given."""

    before: Arrays
    after: Arrays
    batch: Batch
    values: StepValues


@dataclass(frozen=True)
class Edge:
    """What is changed. loads: a state on its way in. images: of every forward pass. batch: of training, by step.
    gradients: on their way out. values: of a step, by step. stepped: the state that a step leaves.
    """

    loads: Callable[[Arrays], Arrays] | None = None
    images: Callable[[Array], Array] | None = None
    batch: Callable[[Batch, int], Batch] | None = None
    gradients: Callable[[Arrays], Arrays] | None = None
    values: Callable[[StepValues, int], StepValues] | None = None
    stepped: Callable[[Taken], Arrays] | None = None


class FaultySession:
    """`session` behind a faulty edge. `step`: number of the training step that is looked at."""

    def __init__(self, session: Session, edge: Edge, step: int) -> None:
        self.session, self.edge, self.step = session, edge, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def load_state(self, state: Mapping[str, Array]) -> None:
        self.session.load_state(self.edge.loads({**state}) if self.edge.loads else state)

    def predict(self, images: Array) -> Array:
        return self.session.predict(self._images(images))

    def activations(self, images: Array) -> Arrays:
        return self.session.activations(self._images(images))

    def losses_and_gradients(self, batch: Batch) -> tuple[dict[str, float], Arrays]:
        losses, gradients = self.session.losses_and_gradients(self._batch(batch))
        return losses, self.edge.gradients(gradients) if self.edge.gradients else gradients

    def train_step(self, batch: Batch, values: StepValues) -> StepResult:
        values = self.edge.values(values, self.step) if self.edge.values else values
        if self.edge.stepped is None:
            return self.session.train_step(self._batch(batch), values)
        before = self.session.state()
        result = self.session.train_step(self._batch(batch), values)
        taken = Taken(before, self.session.state(), batch, values)
        self.session.load_state(self.edge.stepped(taken))
        return result

    def _images(self, images: Array) -> Array:
        return self.edge.images(images) if self.edge.images else images

    def _batch(self, batch: Batch) -> Batch:
        changed = self.edge.batch(batch, self.step) if self.edge.batch else batch
        return replace(changed, images=self._images(changed.images))


def behind(edge: Edge, session: Session, step: int) -> Session:
    """A session behind a faulty edge, to be looked at at a training step."""
    return cast(Session, FaultySession(session, edge, step))
