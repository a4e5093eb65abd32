"""The job of `portdet align`: one training per backend, each in its own process, then tables, picture and page."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from portdet.align.against import judge_against
from portdet.align.finished import read_run, read_trace, read_versions, write
from portdet.align.rule import judge
from portdet.align.runs import Runs
from portdet.config import Config
from portdet.errors import PortdetError
from portdet.processes.child import environment
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
        result = side_by_side(self.config, self.folder, done, self.margin, self.reference, self._start(done[0]))
        if self.crashed:
            result.passed = None
            result.verdict = f"Undecided: {', '.join(self.crashed)} did not finish. {result.verdict}"
        write(self.folder, result)
        return result

    def _start(self, backend: str) -> float | None:
        """AP50 of initial weights that are not drawn, which may find much before any training: by `portdet val`."""
        if self.weights is None and self.pretrained is None:
            return 0.0
        place = self.folder / "val" / "initial"
        command = [sys.executable, "-m", "portdet", "val", str(self.folder / "args.yaml")]
        command += ["--weights", str(self.weights or self.folder / "initial.safetensors"), f"train.backend={backend}"]
        command += [f"train.project={self.folder}", "train.name=initial", "train.exist_ok=true", "eval.save_json=true"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment(), check=False
        )
        if done.returncode:  # the trainings stand, undecided at most
            self.say(f"the initial weights could not be scored: {done.stderr.strip()[-500:]}")
            return None
        return float(json.loads((place / "metrics.json").read_text(encoding="utf-8"))["AP50"] or 0.0)


def side_by_side(
    config: Config,
    folder: Path,
    backends: Sequence[str],
    margin: float,
    reference: Reference | None = None,
    start: float | None = 0.0,
) -> AlignRun:
    """The finished runs in the backends' folders, judged by the rule for one run each, and against `reference`.

    start: AP50 of their initial weights, None: unknown.
    """
    runs = [read_run(folder / name, name, folder) for name in backends]
    result = AlignRun(config.train.name, "", "", runs, reference=reference, start=start)
    judge(result, [read_trace(folder / name) for name in backends], margin)
    try:
        judge_against(result)
    except PortdetError as error:  # hours of training are not thrown away for it
        result.checks.append(Check("published curves", None, error.what))
        result.passed = result.passed and None
    result.environment = read_versions(folder)
    return result
