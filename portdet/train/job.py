"""The job of `portdet train`: data, model, weights, session, loop, and the pictures and tables of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from portdet.backends import load_backend, open_session
from portdet.config import Config
from portdet.data import open_datasets
from portdet.data.loader import TrainLoader
from portdet.data.records import Dataset, Report
from portdet.errors import PortdetError
from portdet.evaluate.validate import Validator, unscored
from portdet.files import write_text
from portdet.models import Detector, load_model
from portdet.models.registry import section_of
from portdet.outside import parse_json, plain, read_text
from portdet.processes.cores import cores
from portdet.processes.scratch import scratch
from portdet.ranks import ALONE, Place, is_shared
from portdet.report import draw, plots
from portdet.report.draw import Boxes
from portdet.report.progress import Progress
from portdet.report.results import read as read_results
from portdet.session import Arrays, Options, Recipe, Session
from portdet.spec.init import initial_weights
from portdet.train.fingerprint import weights_hash
from portdet.train.folder import describe
from portdet.train.groups import recipe
from portdet.train.loop import Outcome, Trainer
from portdet.train.schedule import base_rate, doubts, rate_line

MOST_FACTS = 1 << 20  # bytes of session.json


def model_of(config: Config, names: tuple[str, ...]) -> Detector:
    """The configuration's detector, for the classes of the data; they must agree where both are given."""
    config.model = section = section_of(config, names)
    data = config.data
    return load_model(section, imgsz=data.imgsz, batch=min(data.batch, 2), max_boxes=data.max_boxes)


def recipe_of(config: Config, detector: Detector) -> Recipe:
    """What the backend's step needs to know."""
    shapes = {name: info.shape for name, info in detector.graph.weights().items()}
    return recipe(config, shapes, detector.stages)


def session_of(config: Config, detector: Detector, folder: Path, place: Place = ALONE) -> Session:
    """A session of the configuration's backend, device and mode; the generated source goes into `folder`."""
    t = config.train
    threads = t.threads
    if place.world > 1 and not threads:
        threads = max(1, cores() // place.world)  # ranks that each take all cores wait for one another
    options = Options(t.device, t.mode, threads, place=place, sync_bn=t.sync_bn)
    return open_session(detector, t.backend, recipe_of(config, detector), options, folder)


@dataclass
class TrainJob:
    """One training run in `folder`, or one rank of it; what rank 0 says of the folder counts for all.

    `weights`: arrays to start from by canonical name; names that are missing start from (seed, name). `resume`:
    continue from the folder's last state. `again`: the folder's run was stopped before it saved anything, and has to
    start from the same weights as it did.
    """

    config: Config
    folder: Path
    weights: Arrays | None = None
    resume: bool = False
    again: bool = False
    quiet: bool = False
    place: Place = ALONE

    def run(self) -> Outcome:
        """Train to the end and write the run's tables and pictures."""
        config, place = self.config, self.place
        self._check_place()
        with ExitStack() as stack:
            train_set, val_set = open_datasets(config.data, config.train.seed)
            detector = model_of(config, train_set.names)
            self._check_norms(detector)
            fields = detector.fields
            loader = TrainLoader(
                train_set, config, mean=fields.mean, std=fields.std, seed=config.train.seed, rank=place.rank,
                world=place.world, scores=detector.scores, noise=detector.noise,
            )  # fmt: skip
            stack.callback(loader.close)
            validator = Validator(config, detector, val_set, place)
            stack.callback(validator.close)
            session = stack.enter_context(self._session(detector))
            self.folder = Path(session.gather(str(self.folder))[0])
            if not self.resume:
                session.load_weights({**initial_weights(detector.graph, config.train.seed), **(self.weights or {})})
            epochs, steps = config.train.epochs, loader.steps_per_epoch
            progress = Progress(epochs, steps, batch=config.data.batch, log_every=config.train.log_every,
                                rank=place.rank or int(self.quiet))  # fmt: skip
            stack.enter_context(progress)
            trainer = Trainer(config, session, loader, self.folder, validate=validator, observer=progress, place=place)
            loader.attend(lambda: bool(trainer.stop), progress.note)
            validator.attend(lambda: bool(trainer.stop), progress.note)
            if self.resume:
                trainer.resume()  # before anything is written, as another configuration is refused here
            if place.first:
                self._describe(session)
                for dataset, report in (("train", train_set.report), ("val", val_set.report), ("train", loader.report)):
                    for line in report.lines():
                        progress.note(f"{dataset}: {line}")
                facts = ", ".join(f"{key} {value}" for key, value in session.facts().items())
                if why := unscored(val_set):
                    progress.note(f"val: {why}, and no epoch will be the best. Name annotations with boxes (data.val), "
                                  "or leave validation out: eval.start above train.epochs")  # fmt: skip
                progress.note(f"{len(train_set)} training images, {len(val_set)} for validation; {facts}")
                progress.note(rate_line(config, trainer.schedule))
                for line in doubts(trainer.schedule):
                    progress.note(f"warning: {line}")
                if place.world > 1:
                    progress.note(", ".join(f"{key} {value}" for key, value in self._ranks().items()))
                plots.labels(self.folder / "labels.png", train_set.coco_ground_truth())
                self._picture_of_batch(loader, detector, train_set)
            try:
                outcome = trainer.run()
            finally:
                if place.first and (self.folder / "results.csv").exists():
                    plots.results(self.folder / "results.png", read_results(self.folder / "results.csv"))
            lost = Report()
            for report in session.gather(loader.lost):
                lost.add(report)
            for line in lost.lines():
                progress.note(f"train: {line}")
            self._report(validator, val_set)
            return outcome

    def _check_place(self) -> None:
        """The number of ranks is the configuration's, which learns it from a launcher outside of portdet."""
        settings, world = self.config.train, self.place.world
        if settings.devices not in (1, world):
            raise PortdetError(
                f"train.devices={settings.devices}, but this training has {world} process{'es' * (world > 1)}",
                fix="start it with `portdet train --devices N`, or leave train.devices out under a launcher",
            )
        settings.devices = world

    def _check_norms(self, detector: Detector) -> None:
        if self.place.world > 1 and getattr(detector.fields, "norm_variance", "biased") == "unbiased":
            raise PortdetError(
                f"model.norm_variance=unbiased takes the variance of each of {self.place.world} ranks by itself",
                fix="use train.devices=1, or the biased variance",
            )

    def _ranks(self) -> dict[str, str]:
        """What a run of several ranks says of itself."""
        t, batch, world = self.config.train, self.config.data.batch, self.place.world
        name = load_backend(t.backend).launcher.name
        return {"ranks": str(world), "launcher": name, "batch_per_rank": f"{batch // world} of {batch}",
                "sync_bn": str(t.sync_bn).lower()}  # fmt: skip

    @contextmanager
    def _session(self, detector: Detector) -> Iterator[Session]:
        """The session, closed at the end; not if this rank fails alone: to leave its group it would wait for all."""
        with ExitStack() as stack:
            folder = self.folder
            if not self.place.first:  # two ranks never write one file
                folder = stack.enter_context(scratch())
            session = session_of(self.config, detector, folder, self.place)
            try:
                yield session
            except BaseException as error:
                if self.place.world == 1 or is_shared(error):
                    session.close()
                raise
            session.close()

    def _describe(self, session: Session) -> None:
        """args.yaml, environment.json and, of a new run, session.json."""
        config = self.config
        describe(self.folder, config)
        if self.resume:
            return
        about = {**session.facts(), "learning_rate": f"{base_rate(config):.9g}"}
        if self.place.world > 1:
            about |= self._ranks()
        about["initial_weights"] = weights_hash(session.weights())
        if self.again:
            self._check_start(about["initial_weights"])
        write_text(self.folder / "session.json", json.dumps(about, indent=1) + "\n")

    def _check_start(self, start: str) -> None:
        path = self.folder / "session.json"
        said = parse_json(read_text(path, most=MOST_FACTS), plain(str(path))) if path.exists() else {}
        if isinstance(said, dict) and said.get("initial_weights", start) != start:
            raise PortdetError(
                "this run began from other weights than its configuration names, and nothing of it was saved",
                where=str(self.folder),
                fix="start it anew, in another folder",
            )

    def _picture_of_batch(self, loader: TrainLoader, detector: Detector, dataset: Dataset) -> None:
        """What the network is fed, with its boxes: train_batch.jpg."""
        batch = next(loader.epoch(0))
        loader.lost.clear()  # this batch is not trained on
        weights = batch.scores if self.config.augment.mixes else None
        boxes = [
            Boxes(batch.boxes[i][v], batch.labels[i][v], None if weights is None else weights[i][v])
            for i, v in enumerate(batch.valid[:16])
        ]
        fields = detector.fields
        captions = [f"image {number}" for number in batch.image_ids[:16]]
        picture = draw.train_batch(batch.images[:16], boxes, dataset.names, captions, mean=fields.mean, std=fields.std)
        draw.save(self.folder / "train_batch.jpg", picture)

    def _report(self, validator: Validator, dataset: Dataset) -> None:
        """Tables and pictures of the last validation."""
        if validator.scores is None:
            return
        write_validation(self.folder, validator, dataset, self.config)


def write_validation(folder: Path, validator: Validator, dataset: Dataset, config: Config) -> None:
    """metrics.json, PR.png, confusion.png, val_batch.jpg, and detections.json where eval.save_json asks for it."""
    from portdet.evaluate.confusion import confusion

    assert validator.scores is not None
    scores = validator.scores
    write_text(folder / "metrics.json", json.dumps(scores.plain(), indent=1) + "\n")
    plots.precision_recall(folder / "PR.png", scores)
    results = validator.results()
    plots.confusion(folder / "confusion.png", confusion(validator.truth, results), dataset.names)
    if config.eval.save_json:
        write_text(folder / "detections.json", json.dumps(results))
    draw.save(folder / "val_batch.jpg", sample_pictures(validator, dataset))


def sample_pictures(validator: Validator, dataset: Dataset, count: int = 8) -> Any:
    """The first images with the truth beside what was found."""
    records = dataset.records[:count]
    pictures = [dataset.read(record) for record in records]
    truth = [Boxes(record.boxes, record.labels) for record in records]
    found = [_boxes(validator, record.image_id) for record in records]
    captions = [record.name for record in records]
    return draw.side_by_side(pictures, truth, {"found": found}, dataset.names, captions)


def _boxes(validator: Validator, image_id: int) -> Boxes:
    one = validator.found.get(image_id)
    if one is None:
        return Boxes(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))
    return Boxes(one.boxes, one.labels, one.scores).above(0.25)
