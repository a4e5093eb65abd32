"""The level `ranks`: two processes take the step of one on the same global batch.

Detector, recipe and data are the configuration's own.

`python -m portdet.align.ladder.ranks` is one backend's child: it runs alone, unperturbed and K times under one-ulp
changes, which set the tolerances, and has the backend's own launcher start two ranks three times in one go, under other
one-ulp changes, of which the median counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from portdet.align.compare import Dump, DumpWriter, Envelope, Result, compare, perturb
from portdet.align.ladder.case import Case, case_of
from portdet.align.ladder.outcome import Outcome, Row, from_plain, to_plain
from portdet.align.ladder.plan import Plan
from portdet.align.ladder.shown import run_shown, tell
from portdet.align.probe import perturbed
from portdet.backends import load_backend, open_session
from portdet.config import Config
from portdet.conformance import ranks
from portdet.data import open_datasets
from portdet.data.loader import TrainLoader
from portdet.errors import PortdetError
from portdet.processes.child import serve as answer
from portdet.processes.scratch import scratch
from portdet.ranks import ALONE, Place
from portdet.session import Arrays, Batch, Options, Session

MODULE = "portdet.align.ladder.ranks"
SELF_RUNS, RUNS, STEPS = 8, 3, 3
LEAST = 5e-7
"""The least noise of a running statistic, 4 ulp: several processes normalise by other code than one, sums that are
exchanged. They were 3e-7 (Paddle) to 1.4e-6 (MindSpore) apart, in means over 8,192 values."""
FIRST_SEED = 1000  # of the ranks' runs; self-runs count from 1
STARTS = 3
"""What is different on the batches of the first steps is looked at on two others: a value next to 0 that lands on its
other side, in one process against two, is an accident of a batch."""
TIMEOUT = 3600.0
ALONE_ONLY: dict[str, tuple[Any, Any, str]] = {
    "drop_block": (True, False, "DropBlock is off at this level: it normalises by each process's own mask, in "
                                "PaddleDetection too, so that two processes are not one"),
    "norm_variance": ("unbiased", "biased", "batch norm normalises by the biased variance at this level: the unbiased "
                                            "one is of each process by itself, and is refused for several"),
}  # fmt: skip
"""Fields of models with which two processes are not one by design: value, what is taken instead, why."""


def outcome(plan: Plan, backend: str, say: Callable[[str], None]) -> Outcome:
    """One process against two. Raises PortdetError where either cannot run."""
    request = {"plan": plan.plain(), "backend": backend}
    log = plan.place / "logs" / f"ranks-{backend}.txt"
    return from_plain(run_shown(MODULE, request, say, log, TIMEOUT))


def serve(folder: Path, request: Mapping[str, Any], place: Place) -> None:
    """One rank: a file for each of its runs, and one of what it gathered and refused."""
    case = case_of(Config.model_validate(request["config"]), request["weights"])
    batches = _batches(case, request["start"])
    with _Session(case, place, folder / f"source{place.rank}") as session:
        for number in range(RUNS):
            found = _numbers(case, session, place, batches, FIRST_SEED + number)
            _dump(folder / f"{place.rank}-{number}.safetensors", found)
        _dump(folder / f"{place.rank}.safetensors", ranks.manners(session, case.initial, place))


def comparable(config: Config) -> tuple[Config, dict[str, str]]:
    """The configuration without what two processes do otherwise by design, and what was taken out."""
    config = config.model_copy(deep=True)
    facts = {}
    fields = case_of(config).detector.fields
    for key, (theirs, ours, why) in ALONE_ONLY.items():
        if getattr(fields, key, None) == theirs:
            config.model = {**config.model, key: ours}
            facts[f"model.{key}"] = why
    if not config.train.sync_bn:
        config.train.sync_bn = True
        facts["train.sync_bn"] = "on at this level: without it each process normalises by its own images"
    return config, facts


def _work(request: dict[str, Any]) -> dict[str, Any]:
    plan, backend = Plan.of(request["plan"]), request["backend"]
    config, facts = comparable(plan.configuration(backend))
    case = case_of(config, plan.weights)
    if config.data.batch % ranks.WORLD:
        raise PortdetError(
            f"data.batch={config.data.batch} does not divide among {ranks.WORLD} processes", fix="change data.batch"
        )
    with (
        scratch() as place,
        _Session(case, ALONE, place / "alone") as session,
    ):
        judge = _Judge(plan, case, session, place)
        rows = [_shares(case), *judge.rows()]
        about = session.facts()
    found = Outcome.of("ranks", backend, rows)
    found.words = _words(found)
    found.facts = facts | {
        "launcher": load_backend(backend).launcher.name,
        "processes": f"{ranks.WORLD}, {config.data.batch // ranks.WORLD} of {config.data.batch} images each",
        "steps": f"{STEPS}, from the initial weights",
        "tolerance": f"10 times what {SELF_RUNS} one-ulp changes do to one process",
        "looked at": f"{judge.looks} of {STARTS} sets of batches",
    }
    found.facts |= {key: about[key] for key in ("device", "mode") if key in about}
    return to_plain(found)


class _Judge:
    """Rows of all tensors; what is different on the first batches is looked at on others."""

    def __init__(self, plan: Plan, case: Case, session: Session, folder: Path) -> None:
        self.plan, self.case, self.session, self.folder = plan, case, session, folder
        self.looks = 0

    def rows(self) -> Iterator[Row]:
        result, found = self._look(0)
        suspects = {finding.name for finding in result.findings if finding.status == "different"}
        for start in range(STEPS, STARTS * STEPS, STEPS):
            if suspects:
                suspects &= {finding.name for finding in self._look(start)[0].findings if finding.guilty}
        for finding in result.findings:
            row = Row(**{**asdict(finding), "name": f"ranks/{finding.name}"})
            if finding.status == "different" and finding.name not in suspects:
                row.status, row.words = "kink", f"on these batches alone {row.words}"
            yield row
        for name, true, otherwise in found:
            yield Row(f"ranks/{name}", "same" if true else "broken", "" if true else otherwise)

    def _look(self, start: int) -> tuple[Result, list[tuple[str, bool, str]]]:
        """One process against two on the batches from `start` on, and what the ranks must agree on."""
        self.looks += 1
        place = self.folder / str(start)
        place.mkdir()
        tell(f"ranks, {self.case.config.train.backend}: steps {start} to {start + STEPS - 1}, one process")
        batches = _batches(self.case, start)
        _dump(place / "alone.safetensors", _numbers(self.case, self.session, ALONE, batches))
        reference, envelope = Dump(place / "alone.safetensors"), Envelope()
        for seed in range(1, SELF_RUNS + 1):
            envelope.add(reference, _numbers(self.case, self.session, ALONE, batches, seed))
        for noise in (noise for name, noise in envelope.noise.items() if ".running_" in name):
            noise.max_rel.append(LEAST)
            noise.rel_l2.append(LEAST)
        tell(f"ranks, {self.case.config.train.backend}: {ranks.WORLD} processes")
        settings = self.case.config.train
        request = {"backend": settings.backend, "start": start, "weights": self.plan.weights}
        ranks.launch(MODULE, request | {"config": self.case.config.model_dump(mode="json")}, place / "two", TIMEOUT)
        runs = [[Dump(place / "two" / f"{r}-{n}.safetensors") for n in range(RUNS)] for r in range(ranks.WORLD)]
        agree = [
            {**{key: runs[rank][0][key] for key in runs[rank][0] if key.startswith("state/")},
             **Dump(place / "two" / f"{rank}.safetensors")}
            for rank in range(ranks.WORLD)
        ]  # fmt: skip
        return compare(reference, runs[0], envelope), list(ranks.shared(agree))


class _Session:
    """A session of the case at a place; closed at the end unless this rank fails alone."""

    def __init__(self, case: Case, place: Place, folder: Path) -> None:
        settings = case.config.train
        options = Options(settings.device, settings.mode, 1, place=place)
        folder.mkdir(parents=True, exist_ok=True)
        self.session = open_session(case.detector, settings.backend, case.recipe, options, folder)
        self.alone = place is ALONE

    def __enter__(self) -> Session:
        return self.session

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.alone or kind is None:  # to leave its group a rank would wait for all
            self.session.close()


def _batches(case: Case, start: int) -> list[Batch]:
    """The training's own, from `start` on."""
    return [case.batch(step % case.steps) for step in range(start, start + STEPS)]


def _numbers(case: Case, session: Session, place: Place, batches: Sequence[Batch], seed: int = 0) -> Arrays:
    """What a place shows on its share of the batches; with a seed under one-ulp changes, the images in another order.

    The changes are drawn for the whole batch, so that all processes together see what one sees. Several processes sum
    in another order than one: with its images in the same order one's sums over a batch would all be off alike.
    """
    weights = perturb(case.initial, seed) if seed else case.initial
    batches = [_shuffled(perturbed({}, batch, seed)[1], seed) for batch in batches] if seed else batches
    shares = [batch if place is ALONE else ranks.share(batch, place) for batch in batches]
    return ranks.numbers(session, weights, shares, [case.values(step) for step in range(STEPS)])


def _shuffled(batch: Batch, seed: int) -> Batch:
    order = np.random.default_rng(seed).permutation(len(batch.images))
    return Batch(**{name: array[order] for name, array in vars(batch).items() if array is not None})


def _dump(path: Path, arrays: Arrays) -> None:
    with DumpWriter(path) as dump:
        for name, array in arrays.items():
            dump.put(name, array)


def _shares(case: Case) -> Row:
    """Whether the loaders of all ranks together deal out the batch of one process, bit for bit."""
    whole = case.batch(0)
    for rank in range(ranks.WORLD):
        place = Place(rank, ranks.WORLD, rank)
        if words := _apart(next(_loader(case, place).epoch(0)), ranks.share(whole, place)):
            return Row("ranks/batch", "broken", f"the share of rank {rank} has other {words}")
    return Row("ranks/batch", "same")


def _loader(case: Case, place: Place) -> TrainLoader:
    config, fields = case.config, case.detector.fields
    dataset, _ = open_datasets(config.data, config.train.seed)
    return TrainLoader(
        dataset, config, mean=fields.mean, std=fields.std, seed=config.train.seed, rank=place.rank, world=place.world,
        scores=case.detector.scores, noise=case.detector.noise,
    )  # fmt: skip


def _apart(got: Batch, want: Batch) -> str:
    pairs = ((name, a, vars(want)[name]) for name, a in vars(got).items() if a is not None)
    return ", ".join(name for name, a, b in pairs if not np.array_equal(a, b))


def _words(found: Outcome) -> str:
    if found.guilty:
        return f"{found.guilty} of {found.checked} differ from one process"
    kinks = sum(row.status == "kink" for row in found.rows)
    words = f"two processes as one: {found.checked} losses, gradients, statistics and states within the noise"
    return words + (f"; {kinks} apart on one batch alone" if kinks else "")


if __name__ == "__main__":
    answer(_work)
