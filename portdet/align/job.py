"""The job of `portdet align`: one training per backend, each in its own process, then tables, picture and page."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from portdet.align.rule import Trace, judge
from portdet.config import Config
from portdet.data import open_dataset
from portdet.errors import PortdetError
from portdet.files import replacing, write_text
from portdet.report import align_page, plots
from portdet.report.align_run import AlignRun, BackendRun
from portdet.report.align_tables import markdown
from portdet.report.results import read as read_results
from portdet.spec.init import initial_weights
from portdet.train.folder import describe
from portdet.train.job import model_of


@dataclass
class AlignJob:
    """Trains `config` on every backend, from the same initial weights and data order, and compares.

    `crashed`: backends whose run failed, with what they printed last; the others' results are kept.
    """

    config: Config
    backends: Sequence[str]
    folder: Path
    margin: float
    say: Callable[[str], None]
    weights: Path | None = None
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
        result = AlignRun(self.config.train.name, "", "", [read_run(self.folder / name, name) for name in done])
        judge(result, [read_trace(self.folder / name) for name in done], self.margin)
        if self.crashed:
            result.passed = None
            result.verdict = f"Undecided: {', '.join(self.crashed)} did not finish. {result.verdict}"
        result.environment = json.loads((self.folder / "environment.json").read_text())["versions"]
        plots.side_by_side(self.folder / "side_by_side.png", result)
        result.save(self.folder / "align.json")
        align_page.save(self.folder / "align.html", result)
        write_text(self.folder / "align.md", markdown(result) + "\n")
        return result

    def _initial(self) -> Path:
        detector = model_of(self.config, open_dataset(self.config.data, "train").names)
        path = self.folder / "initial.safetensors"
        with replacing(path) as temporary:
            save_file(initial_weights(detector.graph, self.config.train.seed), temporary)
        return path

    def _train(self, backend: str, initial: Path) -> str:
        """One backend in its own process, shown as it goes; returns what it printed last if it failed."""
        target = self.folder / backend
        target.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "portdet", "train", str(self.folder / "args.yaml"), "--folder", str(target)]
        path = os.pathsep.join(entry for entry in sys.path if entry)
        lines: list[str] = []
        with (target / "log.txt").open("w") as log:
            child = subprocess.Popen(
                [*command, "--initial", str(initial), f"train.backend={backend}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "PYTHONPATH": path},
            )
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
                    child.wait()
        return "\n".join(lines[-5:]) or f"exit code {code}" if code else ""


def read_run(folder: Path, name: str) -> BackendRun:
    """A finished training run as the page shows it."""
    rows = read_results(folder / "results.csv")
    steps = _steps(folder)
    facts: dict[str, Any] = json.loads((folder / "session.json").read_text())
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics.pop("classes", None)
    return BackendRun(
        name=name,
        version=facts.get(name, ""),
        device=facts.get("device", ""),
        seconds=float(rows[-1]["time"]),
        epochs=[dict(row) for row in rows],
        step_losses=[float(row["loss"]) for row in steps],
        metrics=metrics,
        pictures={"predictions": f"{folder.name}/val_batch.jpg"},
        environment=facts,
    )


def read_trace(folder: Path) -> Trace:
    """What the rule compares exactly."""
    steps = _steps(folder)
    about = {"epoch", "step", "lr", "loss_scale", "skipped", "batch"}
    return Trace(
        [row["lr"] for row in steps],
        [row["batch"] for row in steps],
        json.loads((folder / "session.json").read_text())["initial_weights"],
        {name: float(value) for name, value in steps[0].items() if name not in about},
    )


def _steps(folder: Path) -> list[dict[str, str]]:
    with (folder / "steps.csv").open(newline="") as file:
        return list(csv.DictReader(file))
