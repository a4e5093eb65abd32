"""What a ladder is asked to do, as plain data: it crosses to child processes and stays in the run's folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from portdet.config import Config
from portdet.errors import PortdetError
from portdet.files import write_text

POINTS = (0, 1, 2, 5, 20, 100)  # training steps at whose state one step is compared


@dataclass(frozen=True)
class Plan:
    """One ladder.

    config: the whole configuration (`Config.model_dump`). backends: to be compared, `reference` among them or not.
    levels: of `outcome.LEVELS`, in their order. folder: of the run. points: see POINTS; those beyond the training are
    left out. self_runs: K, perturbed runs of the reference that set the tolerances. held_out: healthy comparisons, of
    three perturbed runs each, that have to pass, over all points. seeds: trainings a backend. margin: of the
    equivalence test, in AP50. weights: file of initial weights. faulty: the backend that planted faults are tried on.
    """

    config: dict[str, Any]
    folder: str
    backends: tuple[str, ...]
    levels: tuple[str, ...]
    reference: str = "torch"
    points: tuple[int, ...] = POINTS
    self_runs: int = 16
    held_out: int = 30
    free_steps: int = 30
    seeds: int = 1
    margin: float = 0.1
    parallel: bool = False
    weights: str = ""
    faulty: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> Path:
        return Path(self.folder)

    def outcome_file(self, level: str, backend: str) -> Path:
        """Where a finished level's outcome is kept."""
        return self.place / "levels" / level / f"{backend}.json"

    def configuration(self, backend: str) -> Config:
        """The configuration for one backend."""
        config = Config.model_validate(self.config)
        config.train.backend = backend
        return config

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Plan:
        """From what `plain` gave, JSON's lists for tuples."""
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return cls(**known)

    def save(self) -> None:
        write_text(self.place / "plan.json", json.dumps(self.plain(), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Plan:
        """Of an earlier run's folder, which may have moved; raises PortdetError where there is none."""
        path = folder / "plan.json"
        try:
            return replace(cls.of(json.loads(path.read_text(encoding="utf-8"))), folder=str(folder.resolve()))
        except (OSError, ValueError, TypeError) as error:
            raise PortdetError(f"no alignment to go on with: {error}", where=str(path)) from None
