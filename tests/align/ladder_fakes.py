"""Levels that take no time, for tests of the ladder itself; as a program, a ladder that waits in its second level.

`python ladder_fakes.py FOLDER` prints each line that the ladder says, and is there to be killed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from portdet.align.ladder import free, numbers, ops, power, ranks, training
from portdet.align.ladder.job import LadderJob
from portdet.align.ladder.outcome import LEVELS, Outcome, Row
from portdet.align.ladder.plan import Plan
from portdet.config import Config
from portdet.errors import PortdetError
from portdet.report.align_run import AlignRun, BackendRun
from tests.patience import GUARD


@dataclass
class Fakes:
    """Counts what is asked for. faults: (level, backend) -> 'different', 'unjudged', 'dies', 'bug' and the like."""

    faults: dict[tuple[str, str], str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def outcome(self, level: str, backend: str) -> Outcome:
        self.asked.append((level, backend))
        fault = self.faults.get((level, backend), "noise")
        if fault == "dies":
            raise PortdetError(f"{backend} was killed by SIGSEGV; it printed last:\n    goodbye")
        if fault == "bug":
            raise KeyError("no such thing")
        if fault == "waits":
            time.sleep(2 * GUARD)  # until it is interrupted
        if fault == "interrupt":
            raise KeyboardInterrupt
        rows = [Row(f"{level}/conv0.weight", "noise", step=0, ratio=1.25)]
        rows += [Row(f"{level}/conv1.weight", fault, "lies apart by 0.5", step=0, ratio=3.0)]
        return Outcome.of(level, backend, rows, "as the fake has it", seconds=0.5)

    def ops(self, plan: Plan, backend: str, say: Any) -> Outcome:
        return self.outcome("ops", backend)

    def ranks(self, plan: Plan, backend: str, say: Any) -> Outcome:
        return self.outcome("ranks", backend)

    def numbers(self, plan: Plan, backend: str, say: Any) -> dict[str, Outcome]:
        levels = [level for level in numbers.NUMBERS if level in plan.levels]
        return {level: self.outcome(level, backend) for level in levels[-1 if backend == plan.reference else 0 :]}

    def free(self, plan: Plan, say: Any) -> list[Outcome]:
        return [self.outcome("free", backend) for backend in plan.backends]

    def power(self, plan: Plan, say: Any) -> Outcome:
        return self.outcome("power", plan.faulty or plan.reference)

    def train(self, plan: Plan, say: Any) -> tuple[list[Outcome], AlignRun]:
        epochs = [{"epoch": 1.0, "AP": 0.1, "AP50": 0.2}]
        runs = [BackendRun(name, "1.0", "cpu", 1.0, epochs, [3.0]) for name in plan.backends]
        return [self.outcome("train", name) for name in plan.backends], AlignRun("fake", "rule", "verdict", runs, True)

    def install(self, put: Callable[[Any, str, Any], None]) -> None:
        """put: as `MonkeyPatch.setattr`."""
        for module, name, fake in (
            (ops, "outcome", self.ops),
            (ranks, "outcome", self.ranks),
            (numbers, "outcomes", self.numbers),
            (free, "outcomes", self.free),
            (power, "outcome", self.power),
            (training, "outcome", self.train),
        ):
            put(module, name, fake)


def plan(folder: Path, levels: tuple[str, ...] = LEVELS, backends: tuple[str, ...] = ("torch", "paddle")) -> Plan:
    return replace(Plan(Config().model_dump(mode="json"), str(folder), backends, levels), extra={"command": "portdet"})


def main() -> None:
    fakes = Fakes()
    fakes.install(setattr)
    fakes.faults["ranks", "torch"] = "waits"
    LadderJob(plan(Path(sys.argv[1]), ("ops", "ranks")), lambda line: print(line, flush=True)).run()


if __name__ == "__main__":
    main()
