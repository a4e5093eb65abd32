"""The bank of planted faults on the tiny YOLOv3: one state in the middle of its training, one batch."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from portdet.align.ladder import rules
from portdet.align.ladder.fault_planting import Fault, Planting, applicable
from portdet.align.ladder.fault_session import behind
from portdet.align.ladder.faults import BANK
from portdet.models import Detector
from portdet.session import Batch, Recipe, StepValues
from tests.align.compare_case import CALM, VALUES, Bench, case, recipe

POINT = 5
"""The training step that the tiny case is at."""


@dataclass(frozen=True)
class Subject:
    """The tiny case as a training, whose rate and average change with the step; at POINT they are VALUES."""

    detector: Detector
    recipe: Recipe

    def batch(self, step: int) -> Batch:
        return case(CALM).batch

    def values(self, step: int) -> StepValues:
        share = (1 + step) / (1 + POINT)
        return StepValues(lr=VALUES.lr * share, ema_decay=VALUES.ema_decay * share)


@functools.cache
def planted() -> list[tuple[Fault, Planting]]:
    detector = case(CALM).detector
    return applicable(BANK, Subject(detector, recipe(detector)))


def first_named(it: Bench, planting: Planting) -> str:
    """What the comparison finds guilty first; empty if nothing is."""
    session = it.session
    if planting.detector or planting.recipe:
        session = it.open(planting.recipe or recipe(it.one.detector), planting.detector)
    if planting.edge:
        session = behind(planting.edge, session, POINT)
    values = planting.values(POINT) if planting.values else VALUES
    entered = [rules.entered(it.one.batch, one) for one in (VALUES, values)]
    found = [row.name for row in rules.at(POINT, *entered) if row.guilty]
    found += [finding.name for finding in it.compare(session, range(500, 503), values).guilty()]
    return found[0] if found else ""
