"""All attacks, by name: what runs `count` cases of one, and how many the full script runs."""

from __future__ import annotations

from collections.abc import Callable

from tests.attack import hostile, kills, mutated
from tests.attack.outcome import Row

ATTACKS: dict[str, tuple[Callable[[int], list[Row]], int]] = {
    "kills": (kills.attack, 45),
    "mutated": (mutated.attack, 9000),
    "hostile": (hostile.attack, 10_000),
}
