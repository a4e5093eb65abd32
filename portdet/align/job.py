"""The job of `portdet align`: one training per backend, each in its own process, then tables, picture and page."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.numpy import save_file

from portdet.align.against import judge_against
from portdet.align.finished import read_run, read_trace, write
from portdet.align.rule import judge
from portdet.config import Config
from portdet.data import open_dataset
from portdet.errors import PortdetError
from portdet.files import replacing
from portdet.report.align_reference import Reference
from portdet.report.align_run import AlignRun, Check
from portdet.session import Arrays
from portdet.spec.init import initial_weights
from portdet.train.folder import describe
from portdet.train.job import model_of


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
        describe(self.folder, self.config)
        initial = self.weights or self._initial()
        for backend in self.backends:
            self.say(f"--- {backend} ---")
            error = self._train(backend, initial)
            if error:
                self.crashed[backend] = error
                self.say(f"{backend} failed; its log is {self.folder / backend / 'log.txt'}")
        done = [name for name in self.backends if name not in self.crashed]
        if not done:
            raise PortdetError("no backend finished", fix=next(iter(self.crashed.values())))
        runs = [read_run(self.folder / name, name, self.folder) for name in done]
        result = AlignRun(self.config.train.name, "", "", runs, reference=self.reference)
        judge(result, [read_trace(self.folder / name) for name in done], self.margin)
        try:
            judge_against(result)
        except PortdetError as error:  # hours of training are not thrown away for it
            result.checks.append(Check("published curves", None, error.what))
            result.passed = result.passed and None
        if self.crashed:
            result.passed = None
            result.verdict = f"Undecided: {', '.join(self.crashed)} did not finish. {result.verdict}"
        result.environment = json.loads((self.folder / "environment.json").read_text())["versions"]
        write(self.folder, result)
        return result

    def _initial(self) -> Path:
        detector = model_of(self.config, open_dataset(self.config.data, "train").names)
        path = self.folder / "initial.safetensors"
        with replacing(path) as temporary:
            save_file({**initial_weights(detector.graph, self.config.train.seed), **(self.pretrained or {})}, temporary)
        return path

    def _train(self, backend: str, initial: Path) -> str:
        """One backend in its own process, shown as it goes; returns what it printed last if it failed."""
        target = self.folder / backend
        target.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "portdet", "train", str(self.folder / "args.yaml"), "--folder", str(target)]
        path = os.pathsep.join(entry for entry in sys.path if entry)
        lines: list[str] = []
        with (
            (target / "log.txt").open("w") as log,
            subprocess.Popen(
                [*command, "--initial", str(initial), f"train.backend={backend}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
            ) as child,
        ):
            assert child.stdout is not None
            try:
                for line in child.stdout:
                    log.write(line)
                    lines.append(line.rstrip())
                    self.say(f"[{backend}] {line.rstrip()}")
                code = child.wait()
            finally:
                if child.poll() is None:
                    child.terminate()
        return "\n".join(lines[-5:]) or f"exit code {code}" if code else ""
