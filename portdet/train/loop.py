"""The training loop: one for all backends, resumable bit for bit at any step.

The loop decides by closed forms (learning rate, EMA decay, loss scale) and the session computes. What a later step
depends on is the session's state and a `Progress`, so a run that was interrupted anywhere ends with the same bits as
one that was not.

With several ranks every one runs this loop on its share of each batch. The session makes their losses and weights
equal, and they exchange what one of them alone may know before each step: a signal, a loader that failed. So all decide
alike; rank 0 alone writes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from portdet.config import Config
from portdet.data.workers import Cancelled
from portdet.errors import PortdetError
from portdet.evaluate.coco_map import defined
from portdet.processes import guard
from portdet.ranks import ALONE, Place, is_shared, shared, together
from portdet.report.results import ResultsLog
from portdet.session import Batch, Session, StepResult, StepValues
from portdet.train import checkpoint
from portdet.train.checkpoint import Progress
from portdet.train.ema import ema
from portdet.train.fingerprint import batch_hash, joint_hash
from portdet.train.interrupt import Interrupted, StopRequest
from portdet.train.journal import Journal
from portdet.train.loss_scale import LossScale, loss_scale
from portdet.train.observer import Observer, Silent
from portdet.train.schedule import schedule

BEST_METRIC = "AP"
SIGNAL_ECHO = 3.0  # seconds in which the ranks of one launcher may get one Ctrl-C twice
_SUMMARY = {"loss": ".4g", "AP": ".3f", "AP50": ".3f", "lr": ".4g"}  # columns of results.csv

Validate = Callable[[Session, int], dict[str, float]]
T = TypeVar("T")


class Loader(Protocol):
    """Training batches; `epoch(e, s)` gives the batches of epoch e from its step s on, the same ones every time."""

    @property
    def steps_per_epoch(self) -> int: ...

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Outcome:
    """How a run ended ('finished', 'patience', 'max_steps'), epochs and steps done, best AP, its epoch (-1: none)."""

    reason: str
    epochs: int
    steps: int
    best: float
    best_epoch: int


class Trainer:
    """Trains `session` on `loader` as `config` says; writes logs and checkpoints below `folder`.

    `validate(session, epoch)` returns columns of results.csv, `AP` among them, the same ones on every rank, and runs
    with the EMA weights, if any; what is undefined (-1, NaN) is no score, and never the best. `place`: this process
    among the ranks; `loader` gives its share of each batch. `run()` returns an `Outcome`; it raises `Interrupted` after
    SIGINT, SIGTERM or SIGHUP, and `PortdetError` for a loss that is not finite, a full disk, a folder that is gone, or
    a loader that fails, after saving what can be saved.
    """

    def __init__(
        self,
        config: Config,
        session: Session,
        loader: Loader,
        folder: Path,
        *,
        validate: Validate | None = None,
        observer: Observer | None = None,
        place: Place = ALONE,
    ) -> None:
        self.config, self.session, self.loader, self.folder, self.place = config, session, loader, folder, place
        self.validate, self.observer = validate, observer or Silent()
        self.steps_per_epoch = loader.steps_per_epoch
        self.schedule = schedule(config, self.steps_per_epoch)
        self.ema = ema(config.ema)
        self.scale: LossScale = loss_scale(config.optim.loss_scale)
        self.progress = Progress(
            steps_per_epoch=self.steps_per_epoch,
            config=checkpoint.config_values(config),
            config_hash=checkpoint.config_hash(config),
        )
        self.weights = folder / "weights"
        self.steps_log = Journal(folder / "steps.csv")
        self.results_log: ResultsLog | None = None  # made when the names of the losses are known
        self.stop = StopRequest(SIGNAL_ECHO if place.world > 1 else 0.0)
        self.stopped_by = ""  # the signal that any rank got, once all know of it
        self._resumed = self._saved = False
        self._images_per_second = 0.0

    @property
    def last(self) -> Path:
        return self.weights / "last.safetensors"

    @property
    def best(self) -> Path:
        return self.weights / "best.safetensors"

    @property
    def results(self) -> Path:
        return self.folder / "results.csv"

    def resume(self, path: Path | None = None) -> None:
        """Continue from `path` (default: this run's `last`): session, counters, logs, position in the data."""
        path = path or self.last
        arrays, progress = checkpoint.load_state(path)
        checkpoint.check_resumable(progress, self.config, self.steps_per_epoch, path)
        checkpoint.check_names(arrays, self.session.state(), path)
        if progress.epoch >= self.config.train.epochs:
            raise PortdetError(f"this run has finished its {progress.epoch} epochs", where=str(path))
        self.session.load_state(arrays)
        self.progress, self.scale = progress, LossScale(**progress.loss_scale)
        if self.place.first:
            self.steps_log.forget_after("step", progress.step - 1)
        self._resumed = self._saved = True

    def run(self) -> Outcome:
        """Train to the end, or until a limit, a signal or an error."""
        self._on_first(self._prepare_folder)
        with self.steps_log, self.stop:
            while self.progress.epoch < self.config.train.epochs:
                self._train_epoch()
                if self.progress.epoch_step < self.steps_per_epoch or self.stopped_by:
                    break
                if not self._finished_epoch() or self._stops_early() or self.stopped_by:
                    break
            return self._end()

    def _prepare_folder(self) -> None:
        self.weights.mkdir(parents=True, exist_ok=True)
        if not self._resumed:
            self.steps_log.clear()
            self.results.unlink(missing_ok=True)

    def _on_first(self, work: Callable[[], T]) -> T | None:
        """Done by rank 0 alone; the others wait, and raise what it raises. Its result, small, on all."""
        return together(self.session.gather, lambda: work() if self.place.first else None)[0]

    def _agree(self, work: Callable[[], str]) -> list[str]:
        """What `work` says on every rank; learns of a signal to any of them, so that all stop after the same step."""
        told = together(self.session.gather, lambda: (work(), self.stop.signal_name))
        self.stopped_by = next((name for _, name in told if name), "")
        return [word for word, _ in told]

    def _train_epoch(self) -> None:
        """The steps of the epoch that are not done yet, or fewer where something asks to stop."""
        p = self.progress
        self._images_per_second = 0.0
        if p.epoch_step == self.steps_per_epoch:
            return
        start, images = time.perf_counter(), 0
        batches = self.loader.epoch(p.epoch, p.epoch_step)
        try:
            while (found := self._next(batches)) is not None:
                self._step(*found)
                images += len(found[0].images) * self.place.world
        finally:
            if isinstance(batches, Generator):
                batches.close()  # lets the loader end its workers now
        seconds = time.perf_counter() - start
        p.seconds += seconds
        self._images_per_second = images / seconds

    def _next(self, batches: Iterator[Batch]) -> tuple[Batch, str] | None:
        """The next batch and the hash of all ranks' shares; None at the end of the epoch or where the ranks stop."""
        p, batch = self.progress, None

        def fetch() -> str:
            nonlocal batch
            guard.check(self.folder)
            if self.stop or p.epoch_step == self.steps_per_epoch or self._at_max_steps():
                return ""
            try:
                batch = next(batches, None)
            except Cancelled:
                return ""
            if batch is None:
                raise PortdetError(
                    f"the loader gave {p.epoch_step} of the {self.steps_per_epoch} batches of epoch {p.epoch + 1}"
                )
            return batch_hash(batch)

        with self._saved_on_error():
            hashes = self._agree(fetch)
        return None if batch is None or self.stopped_by else (batch, joint_hash(hashes))

    def _step(self, batch: Batch, digest: str) -> None:
        p = self.progress
        values = StepValues(self.schedule.lr_at(p.step), self.scale.scale, self.ema.decay(p.ema_updates))
        result = self.session.train_step(batch, values)
        if not result.skipped:
            self._check_finite(result, batch, digest)
            p.ema_updates += self.ema.active
            p.loss_count += 1
        for name, value in result.losses.items():
            p.loss_sums[name] = p.loss_sums.get(name, 0.0) + (0.0 if result.skipped else value)
        row = {"epoch": p.epoch + 1, "step": p.step, "lr": values.lr, **result.losses}
        if self.place.first:
            row |= {"loss_scale": values.loss_scale, "ema_decay": values.ema_decay, "skipped": int(result.skipped)}
            self.steps_log.add(row | {"batch": digest})
        self.scale.update(skipped=result.skipped, step=p.step)
        p.step += 1
        p.epoch_step += 1
        with self._saved_on_error():  # whoever reads what is printed may be gone
            if result.skipped:
                self.observer.note(
                    f"step {p.step - 1}: gradients overflow at loss scale {values.loss_scale:g}; the step is skipped "
                    f"({self.scale.skipped_steps} so far)"
                )
            self.observer.step(p.epoch + 1, p.epoch_step, result.losses)

    def _check_finite(self, result: StepResult, batch: Batch, digest: str) -> None:
        if all(math.isfinite(value) for value in result.losses.values()):
            return
        p = self.progress
        parts = ", ".join(f"{name} {value:g}" for name, value in result.losses.items())
        images = ", ".join(str(number) for ids in self.session.gather(batch.image_ids[:8].tolist()) for number in ids)
        kept = f"{self.last} holds the last good state" if self._saved else "no checkpoint was written yet"
        raise shared(
            PortdetError(
                f"the loss of step {p.step} (epoch {p.epoch + 1}) is not finite: {parts}; "
                f"images {images}; batch {digest}. {kept}",
                fix="lower optim.lr0, raise optim.warmup_epochs or set optim.clip_norm; "
                "look at the boxes of these images",
            )
        )

    def _finished_epoch(self) -> bool:
        """False where a signal came while a validation waited: it is done again when the run goes on."""
        try:
            self._finish_epoch()
        except PortdetError as error:
            if not (is_shared(error) if self.place.world > 1 else isinstance(error, Cancelled)):
                raise
            self._agree(lambda: "")
            if not self.stopped_by:
                raise
            return False
        self._agree(lambda: "")
        return True

    def _finish_epoch(self) -> None:
        """Validate, write the row of results.csv, keep best and last, step to the next epoch."""
        p = self.progress
        start = time.perf_counter()
        metrics, best = self._validate()
        p.seconds += time.perf_counter() - start
        line = self._log_epoch(metrics, p.seconds, "best so far" if best else "")
        p.epoch, p.epoch_step, p.loss_sums, p.loss_count = p.epoch + 1, 0, {}, 0
        self._save_last()
        period = self.config.train.save_period
        if period and p.epoch % period == 0:
            self._save(self.weights / f"epoch{p.epoch}.safetensors")
        self.observer.note(line)

    def _score_unfinished(self) -> None:
        """The epoch that max_steps cut short gets its row, too; the saved state does not know of it."""
        start = time.perf_counter()
        metrics, _ = self._validate()
        seconds = self.progress.seconds + time.perf_counter() - start
        remark = f"after {self.progress.epoch_step} of {self.steps_per_epoch} steps"
        self.observer.note(self._log_epoch(metrics, seconds, remark))

    def _log_epoch(self, metrics: Mapping[str, float], seconds: float, remark: str) -> str:
        """Write the row of this epoch in results.csv, and return its line."""
        p = self.progress
        row = {"epoch": p.epoch + 1, "time": round(seconds, 3), "step": p.step, "lr": self.schedule.lr_at(p.step - 1)}
        row |= {name: total / p.loss_count for name, total in p.loss_sums.items() if p.loss_count}
        row |= metrics
        if self._images_per_second:
            row["images_per_s"] = round(self._images_per_second, 3)

        def write() -> None:
            if self.results_log is None:
                losses = list(p.loss_sums)
                self.results_log = ResultsLog(self.results, losses, resume_epoch=p.epoch, scored=self._due)
            self.results_log.append(row)

        self._on_first(write)
        return "  ".join(filter(None, [_summary(row, self.config.train.epochs), remark]))

    def _due(self, number: int) -> bool:
        """Whether epoch `number` (from 1) is one to validate after."""
        settings, last = self.config.eval, self.config.train.epochs
        return number >= settings.start and ((number - settings.start) % settings.every == 0 or number == last)

    def _validate(self) -> tuple[dict[str, float], bool]:
        """Metrics now, if it is time for them, and whether they are the best so far.

        Where max_steps ends a run it is as for the last epoch, so that the whole way is tried. But that leaves no trace
        in the progress, since a run that never stopped there has none; it makes the best weights only while no epoch
        has made any.
        """
        p = self.progress
        due = p.epoch_step == self.steps_per_epoch and self._due(p.epoch + 1)
        end = self._at_max_steps() and self._due(self.config.train.epochs)
        if self.validate is None or not (due or end):
            return {}, False
        with self._saved_on_error(), self.observer.validation(), self._evaluated():
            found = self.validate(self.session, p.epoch)
            metrics = {name: float(value) for name, value in found.items() if defined(value)}
            if (score := metrics.get(BEST_METRIC)) is None:
                return metrics, False
            better = p.best_epoch < 0 or (due and score > p.best)
            if better:
                self._on_first(lambda: self._save_best(metrics))
            if due:
                p.best, p.best_epoch, p.stale = (score, p.epoch, 0) if better else (p.best, p.best_epoch, p.stale + 1)
        return metrics, better

    def _evaluated(self) -> AbstractContextManager[None]:
        """The session with the weights that are validated and published: EMA where it has had an update."""
        updates = self.progress.ema_updates
        return self.session.ema_weights(self.ema.correction(updates)) if updates else nullcontext()

    def _save_best(self, metrics: dict[str, float]) -> None:
        p = self.progress
        updates = p.ema_updates
        divided = {"ema_updates": updates, "ema_correction": self.ema.correction(updates)} if updates else {}
        about = {
            "weights": self.ema.kind if updates else "raw",
            **divided,
            "epoch": p.epoch + 1,
            "step": p.step,
            "metrics": metrics,
            "config": self.config.model_dump(mode="json"),
        }
        checkpoint.save_weights(self.best, self.session.weights(), about)

    def _save_last(self) -> None:
        self._save(self.last)

    def _save(self, path: Path) -> None:
        """Rank 0 writes the state, which all ranks share; the others go on when it is on the disk."""
        self.progress.loss_scale = self.scale.state()
        self._on_first(lambda: self._write(path))
        self._saved = True

    def _write(self, path: Path) -> None:
        self.steps_log.flush()
        checkpoint.save_state(path, self.session.state(), self.progress)

    @contextmanager
    def _saved_on_error(self) -> Iterator[None]:
        """Between two steps the state is good: keep it if loading data or validating fails, so no step is lost."""
        try:
            yield
        except BaseException as error:
            if self.place.world == 1 or is_shared(error):
                self._save_last()
            elif self.place.first:  # the others may be anywhere: nothing to wait for
                self._write(self.last)
            raise

    def _at_max_steps(self) -> bool:
        return 0 < self.config.train.max_steps <= self.progress.step

    def _stops_early(self) -> bool:
        return self._at_max_steps() or 0 < self.config.train.patience <= self.progress.stale

    def _end(self) -> Outcome:
        p = self.progress
        if self.stopped_by or self._at_max_steps():
            self._save_last()
        if self.stopped_by:
            raise shared(
                Interrupted(
                    f"stopped by {self.stopped_by} after {p.step} steps (epoch {p.epoch + 1}); saved in {self.last}",
                    fix=f"portdet train --resume {self.folder}",
                )
            )
        if self._at_max_steps() and p.epoch_step:
            self._score_unfinished()
        finished = p.epoch == self.config.train.epochs
        reason = "finished" if finished else "max_steps" if self._at_max_steps() else "patience"
        return Outcome(reason, p.epoch, p.step, p.best, p.best_epoch)


def _summary(row: Mapping[str, float], epochs: int) -> str:
    """The line of an epoch: 'epoch 3/12  loss 84.31  AP 0.213  AP50 0.467  lr 0.00937  12.5 s'."""
    words = [f"{name} {row[name]:{form}}" for name, form in _SUMMARY.items() if name in row]
    return "  ".join([f"epoch {row['epoch']:g}/{epochs}", *words, f"{row['time']:.1f} s"])
