"""The table of settings that a resumed run must not feel: options and their values, and which combinations are run."""

from __future__ import annotations

import itertools
from typing import Any

OPTIONS: dict[str, tuple[str, ...]] = {
    "ema": ("none", "constant", "exponential", "threshold", "threshold_exact"),
    "scale": ("1", "1024", "dynamic"),
    "optimiser": ("momentum", "nesterov", "no momentum"),
    "clip": ("none", "global", "group"),
    "freeze": ("nothing", "conv", "norm"),
    "stops": ("1", "3", "1 4", "2 3 5"),  # steps after which the run is left, of two epochs of three steps
}
Case = tuple[str, ...]
"""A value of each option, in their order."""


def product() -> list[Case]:
    """Every combination, 1,620 of them."""
    return list(itertools.product(*OPTIONS.values()))


def most() -> list[Case]:
    """Every combination of all but the last option, whose values take turns: 405."""
    *others, stops = OPTIONS.values()
    return [(*case, stops[i % len(stops)]) for i, case in enumerate(itertools.product(*others))]


def singles() -> list[Case]:
    """Each value of each option at least once, in as few cases as the longest option has values."""
    count = max(map(len, OPTIONS.values()))
    return [tuple(values[i % len(values)] for values in OPTIONS.values()) for i in range(count)]


def pairs() -> list[Case]:
    """Every two values of two options together at least once: greedily, the case with most pairs that lack."""
    left = {pair for case in product() for pair in pairs_of(case)}
    chosen: list[Case] = []
    while left:
        best = max(product(), key=lambda case: len(left & pairs_of(case)))
        chosen.append(best)
        left -= pairs_of(best)
    return chosen


def pairs_of(case: Case) -> set[tuple[tuple[str, str], ...]]:
    return set(itertools.combinations(zip(OPTIONS, case, strict=True), 2))


def section(case: Case) -> dict[str, Any]:
    """The case as words of `tests.train.fakes.settings`, without where it stops."""
    ema, scale, optimiser, clip, freeze, _ = case
    return {
        "train__epochs": 2,
        "ema__kind": ema,
        "optim__loss_scale": scale if scale == "dynamic" else float(scale),
        "optim__nesterov": optimiser == "nesterov",
        "optim__momentum": 0.0 if optimiser == "no momentum" else 0.9,
        "optim__clip_norm": 0.0 if clip == "none" else 0.05,
        "optim__clip": "group" if clip == "group" else "global",
        "optim__freeze": [] if freeze == "nothing" else [freeze],
    }
