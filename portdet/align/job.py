"""The job of `portdet align`: one training per backend, each in its own process, then tables, picture and page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from portdet.align.against import judge_against
from portdet.align.finished import read_run, read_trace, read_versions, write
from portdet.align.rule import judge
from portdet.align.runs import Runs
from portdet.config import Config
from portdet.errors import PortdetError
from portdet.report.align_reference import Reference
from portdet.report.align_run import AlignRun, Check
from portdet.session import Arrays


@dataclass
class AlignJob:
    """Trains `config` on every backend, from the same initial weights and data order, and compares.

    weights: a file of all initial weights; without it they are drawn from the seed, `pretrained` taken first.
    reference: curves that the runs are held against besides each other.
    `crashed`: backends whose run failed, with what they printed last; the others' results are kept.
    """

    config: Config
    backends: Sequence[str]
    folder: Path
    margin: float
    say: Callable[[str], None]
    weights: Path | None = None
    pretrained: Arrays | None = None
    reference: Reference | None = None
    crashed: dict[str, str] = field(default_factory=dict)

    def run(self) -> AlignRun:
        """Train, compare, write align.json, align.html, align.md and side_by_side.png."""
        runs = Runs(self.config, self.backends, self.folder, self.say, weights=self.weights, pretrained=self.pretrained)
        runs.crashed = self.crashed
        runs.train()
        done = [name for name in self.backends if name not in self.crashed]
        result = side_by_side(self.config, self.folder, done, self.margin, self.reference)
        if self.crashed:
            result.passed = None
            result.verdict = f"Undecided: {', '.join(self.crashed)} did not finish. {result.verdict}"
        write(self.folder, result)
        return result


def side_by_side(
    config: Config, folder: Path, backends: Sequence[str], margin: float, reference: Reference | None = None
) -> AlignRun:
    """The finished runs in the backends' folders, judged by the rule for one run each, and against `reference`."""
    runs = [read_run(folder / name, name, folder) for name in backends]
    result = AlignRun(config.train.name, "", "", runs, reference=reference)
    judge(result, [read_trace(folder / name) for name in backends], margin)
    try:
        judge_against(result)
    except PortdetError as error:  # hours of training are not thrown away for it
        result.checks.append(Check("published curves", None, error.what))
        result.passed = result.passed and None
    result.environment = read_versions(folder)
    return result
