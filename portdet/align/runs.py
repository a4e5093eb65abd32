"""Paired trainings: every backend from the same initial weights on the same batches, each in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from safetensors.numpy import load_file

from portdet import tensors
from portdet.align.finished import read_facts
from portdet.config import Config, load
from portdet.data import open_dataset
from portdet.errors import PortdetError
from portdet.models import Detector
from portdet.processes import watch
from portdet.processes.child import environment
from portdet.session import Arrays
from portdet.spec.init import initial_weights
from portdet.train import checkpoint
from portdet.train.fingerprint import weights_hash
from portdet.train.folder import describe
from portdet.train.job import model_of

_PLACE = ("device", "devices", "mode", "threads")  # what changes a run's rounding


@dataclass
class Runs:
    """`seeds` trainings of `config` a backend, the first with its own seed, each further one with the next.

    weights: a file of all initial weights, for every seed; without it they are drawn from the seed, `pretrained` taken
    first. keep: runs that are in `folder` already are kept if they are whole, and resumed if they were stopped.
    `crashed`: folders' names of the runs that failed, with what they printed last; the others' results are kept.
    """

    config: Config
    backends: Sequence[str]
    folder: Path
    say: Callable[[str], None]
    seeds: int = 1
    weights: Path | None = None
    pretrained: Arrays | None = None
    keep: bool = False
    crashed: dict[str, str] = field(default_factory=dict)

    def name(self, backend: str, seed: int) -> str:
        """The run's folder below `folder`. seed: counted from 0."""
        return f"{backend}_seed{self.config.train.seed + seed}" if seed else backend

    def train(self) -> None:
        """All of them, seed by seed, so that pairs are whole early. Raises PortdetError if none finished."""
        describe(self.folder, self.config)
        for seed in range(self.seeds):
            initial = self.weights or self._initial(seed)
            for backend in self.backends:
                self._run(backend, seed, initial)
        if len(self.crashed) == self.seeds * len(self.backends):
            raise PortdetError("no backend finished", fix=next(iter(self.crashed.values())))

    def _run(self, backend: str, seed: int, initial: Path) -> None:
        name = self.name(backend, seed)
        self.say(f"--- {backend}{f', seed {self.config.train.seed + seed}' if seed else ''} ---")
        state = self._state(self.folder / name, backend, seed, initial) if self.keep else "none"
        if state == "finished":
            self.say(f"{name} is finished and kept")
            return
        if state == "stopped":
            self.say(f"{name} goes on where it was stopped")
        elif self.keep and (self.folder / name / "results.csv").exists():
            self.say(f"{name} is of another training, or cannot be resumed: it starts anew")
        error = self._train(name, backend, seed, initial, resume=state == "stopped")
        if error:
            self.crashed[name] = error
            self.say(f"{name} failed; its log is {self.folder / name / 'log.txt'}")

    def _initial(self, seed: int) -> Path:
        config = self._resolved(seed)
        path = self.folder / (f"initial_seed{config.train.seed}.safetensors" if seed else "initial.safetensors")
        drawn = initial_weights(self._model[1].graph, config.train.seed)
        tensors.write(path, {**drawn, **(self.pretrained or {})})
        return path

    def _resolved(self, seed: int) -> Config:
        """One seed's configuration, as its run writes it down."""
        config = self._model[0].model_copy(deep=True)
        config.train.seed += seed
        return config

    @cached_property
    def _model(self) -> tuple[Config, Detector]:
        """The configuration with the data's number of classes, and its detector."""
        config = self.config.model_copy(deep=True)
        return config, model_of(config, open_dataset(config.data, "train").names)

    def _state(self, target: Path, backend: str, seed: int, initial: Path) -> Literal["none", "stopped", "finished"]:
        """What is in a run's folder: this very training, whole or stopped, or nothing of use."""
        try:
            was, wanted = load(str(target / "args.yaml"), alone=True), self._resolved(seed)
            progress = checkpoint.load_state(target / "weights" / "last.safetensors")[1]
            began = read_facts(target).get("initial_weights", "")
        except PortdetError:
            return "none"
        wanted.train.backend = backend
        same = checkpoint.config_values(was) == checkpoint.config_values(wanted) == progress.config
        same &= all(getattr(was.train, key) == getattr(wanted.train, key) for key in ("backend", *_PLACE))
        if not same or began != weights_hash(load_file(initial)):
            return "none"
        limit, patience = wanted.train.max_steps, wanted.train.patience
        ended = progress.epoch >= wanted.train.epochs or 0 < limit <= progress.step or 0 < patience <= progress.stale
        return "finished" if ended and (target / "results.csv").is_file() else "stopped"

    def _train(self, name: str, backend: str, seed: int, initial: Path, *, resume: bool) -> str:
        """One run in its own process, shown as it goes; returns what it printed last if it failed."""
        target = self.folder / name
        target.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "portdet", "train"]
        if resume:
            command += ["--resume", str(target)]
        else:
            command += [str(self.folder / "args.yaml"), "--folder", str(target), "--initial", str(initial)]
            command += [f"train.backend={backend}", f"train.seed={self.config.train.seed + seed}"]
            command += ["train.exist_ok=true"]  # another training that is there is set aside
        lines: list[str] = []
        with (
            (target / "log.txt").open("a") as log,
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                env=environment(),
                start_new_session=True,  # a terminal's Ctrl-C is ours to pass on: a second signal would end it unsaved
            ) as child,
            watch.watching(name, child.pid, self.say),
        ):
            assert child.stdout is not None
            try:
                for line in child.stdout:
                    log.write(line)
                    lines.append(line.rstrip())
                    self.say(f"[{name}] {line.rstrip()}")
                code = child.wait()
            except BaseException:
                child.terminate()
                child.send_signal(signal.SIGCONT)  # to one that is stopped the other comes when it goes on
                log.writelines(child.stdout)  # until it has put its things away
                raise
        return "\n".join(lines[-5:]) or f"exit code {code}" if code else ""
