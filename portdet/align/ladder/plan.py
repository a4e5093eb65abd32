"""What a ladder is asked to do, as plain data: it crosses to child processes and stays in the run's folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from portdet.config import Config
from portdet.files import write_text
from portdet.outside import complaint, file_name, read_json

# What a folder's plan may say: names of files and of installed backends, counts that a machine can do.
Backend = Annotated[str, AfterValidator(lambda name: file_name(name, "the backend") if name else name)]
Level = Annotated[str, AfterValidator(lambda name: file_name(name, "the level"))]
Count = Annotated[int, Field(ge=0, le=10**9)]
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
    backends: tuple[Backend, ...]
    levels: tuple[Level, ...]
    reference: Backend = "torch"
    points: tuple[Count, ...] = POINTS
    self_runs: Count = 16
    held_out: Count = 30
    free_steps: Count = 30
    seeds: Count = 1
    margin: Annotated[float, Field(ge=0, le=1)] = 0.1
    parallel: bool = False
    weights: str = ""
    faulty: Backend = ""
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
        path, fix = folder / "plan.json", "name a folder of `portdet align --level`"
        plan = read_json(path, TypeAdapter(cls), fix)
        try:
            Config.model_validate(plan.config)
        except ValidationError as error:
            raise complaint(error, str(path), fix, under="config") from None
        return replace(plan, folder=str(folder.resolve()))
