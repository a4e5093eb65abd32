"""Trainings that are left and resumed, beside ones that are not: `python resume_child.py IN OUT BACKEND MODE CASE...`.

A CASE is its values joined by commas; `momentum!CASE` forgets this part of the state at each resume. Every part of a
training has a session of its own, as a new process would. For each case OUT holds `<case>/apart`, what differs in
words, and `<case>/kept`: names of the checkpoint's parts, of steps that were skipped, of parts whose last state differs
from the initial one.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from portdet import ops
from portdet.backends import load_backend
from portdet.config import Config
from portdet.ir.graph import ModuleGraph
from portdet.ir.trace import graph
from portdet.lower import emit
from portdet.lower.names import native_names
from portdet.session import Arrays, Batch, Options, Session, Source
from portdet.spec import BatchNorm2d, Conv2d, Module
from portdet.train import checkpoint
from portdet.train.groups import recipe
from portdet.train.loop import Trainer
from tests.backends.resume_cases import Case, section
from tests.train.fakes import files, rows, settings

STEPS, OVERFLOW = 3, (1, 4)  # steps of an epoch; steps whose gradients overflow under a dynamic scale
SIDE = 8


class Net(Module):
    """Weights of both decay groups, a bias, statistics, and a kernel of SMALL values and more for the shadow."""

    def __init__(self) -> None:
        self.conv, self.norm = Conv2d(3, 8, 3, 2, pads=(1, 1, 1, 1)), BatchNorm2d(8)
        self.wide = Conv2d(8, 260, 3, pads=(1, 1, 1, 1), bias=True)

    def predict(self, images: Any) -> Any:
        return self.wide(ops.leaky_relu(self.norm(self.conv(images)), slope=0.1))

    def loss(self, images: Any, scores: Any) -> dict[str, Any]:
        y = self.wide(ops.leaky_relu(self.norm(self.conv(images)), slope=0.1))
        half = ops.mean(y * y, axis=None) * ops.sum(scores, axis=None)
        return {"loss": half + half, "half": half}


class Loader:
    """Batches of two images, drawn from their step. huge: steps whose loss is 10^35, finite without a scale."""

    steps_per_epoch = STEPS

    def __init__(self, huge: tuple[int, ...]) -> None:
        self.huge = huge

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        for step in range(epoch * STEPS + start_step, (epoch + 1) * STEPS):
            images = np.random.default_rng(step).normal(size=(2, 3, SIDE, SIDE)).astype(np.float32)
            scores = np.full((2, 1), 1e35 if step in self.huge else 0.5, np.float32)
            none = np.zeros((2, 1, 4), np.float32)
            yield Batch(images, none, np.zeros((2, 1), np.int32), np.zeros((2, 1), bool), np.array([0, 1]), scores)


def traced() -> ModuleGraph:
    images, scores = ((2, 3, SIDE, SIDE), "float"), ((2, 1), "float")
    methods: Any = {"loss": (True, {"images": images, "scores": scores}), "predict": (False, {"images": images})}
    return graph(Net(), methods)


def initial(net: ModuleGraph) -> Arrays:
    random = np.random.default_rng(7)
    drawn = {name: random.normal(size=info.shape) * 0.3 for name, info in net.weights().items()}
    return {name: np.abs(a).astype(np.float32) + np.float32(name.endswith("running_var")) for name, a in drawn.items()}


class Table:
    """All parts of all trainings of one backend in one mode."""

    def __init__(self, backend: str, mode: str, folder: Path) -> None:
        self.backend, self.options, self.folder, self.net = backend, Options(mode=mode, threads=1), folder, traced()
        self.start = initial(self.net)

    def opened(self, config: Config) -> Session:
        chosen = load_backend(self.backend)
        text = emit(self.net, chosen.target, title="A net to resume.")
        source = Source(text, self.folder / f"net_{self.backend}.py")
        shapes = {name: info.shape for name, info in self.net.weights().items()}
        names = native_names(self.net, chosen.target)
        return chosen.open_session(source, "Net", recipe(config, shapes), names, self.options)

    def part(self, folder: Path, case: Case, limit: int, *, resume: bool, forgotten: str = "") -> Arrays:
        """Train up to `limit` steps, 0: to the end. The state that the session ends with."""
        words = section(case)
        config = settings(train__max_steps=limit, **words)
        session = self.opened(config)
        loader = Loader(OVERFLOW if words["optim__loss_scale"] == "dynamic" else ())
        trainer = Trainer(config, session, loader, folder, validate=score)
        if resume:
            trainer.resume()
            if forgotten:
                session.load_state({k: a * (not k.startswith(f"{forgotten}/")) for k, a in session.state().items()})
        else:
            session.load_weights(self.start)
        trainer.run()
        state = session.state()
        session.close()
        return state

    def compare(self, case: Case, forgotten: str) -> tuple[list[str], list[str]]:
        """What differs, and what there is, see the file's docstring."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            whole, parts = Path(name, "whole"), Path(name, "parts")
            wanted = self.part(whole, case, 0, resume=False)
            found: Arrays = {}
            for number, limit in enumerate([*map(int, case[-1].split()), 0]):
                found = self.part(parts, case, limit, resume=number > 0, forgotten=forgotten)
            apart = [f"state: {key}" for key in sorted(wanted.keys() | found.keys()) if not same(key, wanted, found)]
            apart += [f"log: {log}" for log, text in files(whole).items() if files(parts)[log] != text]
            for file in ("last", "best"):
                paths = [folder / "weights" / f"{file}.safetensors" for folder in (whole, parts)]
                one, two = (load_file(path) for path in paths)
                about, other = (checkpoint.load_weights(path)[1] for path in paths)
                apart += [f"{file}: {key}" for key in sorted(one.keys() | two.keys()) if not same(key, one, two)]
                free = ("seconds", "config")  # the clock; max_steps
                apart += [f"{file}: {key}" for key in about if key not in free and about[key] != other.get(key)]
            kept = sorted({key.partition("/")[0] for key in wanted})
            kept += [f"skipped {row['step']}" for row in rows(whole / "steps.csv") if row["skipped"] == "1"]
            moved = {k.partition("/")[0] for k, a in wanted.items() if (a != self.start[k.partition("/")[2]]).any()}
        return apart, kept + [f"moved {part}" for part in sorted(moved)]


def same(key: str, one: Arrays, two: Arrays) -> bool:
    return key in one and key in two and one[key].tobytes() == two[key].tobytes()


def score(session: Session, _epoch: int) -> dict[str, float]:
    """All weights that are validated, in one number."""
    return {"AP": float(sum(np.abs(array).sum(dtype=np.float64) for array in session.weights().values()))}


def main() -> None:
    _, _, out, backend, mode, *cases = sys.argv
    table = Table(backend, mode, Path.cwd())
    found: Arrays = {}
    for words in cases:
        forgotten, _, values = words.rpartition("!")
        apart, kept = table.compare(tuple(values.split(",")), forgotten)
        found |= {f"{words}/apart": np.array(apart, str), f"{words}/kept": np.array(kept, str)}
    np.savez(out, **found)


if __name__ == "__main__":
    main()
