"""Scoring a session on a data set: predict, decode, suppress, COCO's metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from portdet.config import Config
from portdet.data.loader import EvalLoader
from portdet.data.records import Dataset
from portdet.errors import PortdetError
from portdet.evaluate.coco_map import CocoScores, evaluate
from portdet.models import Detector
from portdet.postprocess.detections import Detections, to_coco
from portdet.ranks import ALONE, Place, shared, together
from portdet.session import Session


def unscored(dataset: Dataset) -> str:
    """Why nothing can be scored on this data set, in words; '' where it can. Crowds alone are no ground truth."""
    if any(not record.crowd.all() for record in dataset.records):
        return ""
    return f"none of the {len(dataset)} validation images has a box to be scored against: AP is undefined"


@dataclass
class Validator:
    """Validates any session on one data set; keeps the last scores and detections for tables and pictures.

    Each rank predicts its share of the images, rank 0 scores them all; the others keep no scores.
    """

    config: Config
    detector: Detector
    dataset: Dataset
    place: Place = ALONE
    truth: dict[str, Any] = field(init=False)
    found: dict[int, Detections] = field(default_factory=dict)
    scores: CocoScores | None = None
    _loader: EvalLoader = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.truth = self.dataset.coco_ground_truth()
        fields = self.detector.fields
        share = replace(self.dataset, records=self.dataset.records[self.place.rank :: self.place.world])
        self._loader = EvalLoader(share, self.config, mean=fields.mean, std=fields.std)

    def __call__(self, session: Session, epoch: int = 0) -> dict[str, float]:
        """COCO's twelve numbers by name, on every rank; -1 where undefined."""
        self.predict(session)
        return together(session.gather, lambda: self.score().numbers if self.place.first else {})[0]

    def run(self, session: Session, progress: Callable[[int, int], None] | None = None) -> CocoScores:
        """Score the session as it is, in a single process. progress(batch, batches) is called after each batch."""
        self.predict(session, progress)
        return self.score()

    def predict(self, session: Session, progress: Callable[[int, int], None] | None = None) -> None:
        """Find the boxes of all images, those of the other ranks' shares too, in the order of the data set."""
        shares = together(session.gather, lambda: self._share(session, progress))
        found = {image_id: one for share in shares for image_id, one in share.items()}
        numbers = [record.image_id for record in self.dataset.records]
        if sorted(numbers) != sorted(image_id for share in shares for image_id in share):
            counts = [len(share) for share in shares]
            raise shared(PortdetError(f"the ranks' shares {counts} are not the {len(numbers)} images of the data set"))
        self.found = {number: found[number] for number in numbers}

    def _share(self, session: Session, progress: Callable[[int, int], None] | None) -> dict[int, Detections]:
        """Boxes by image, of this rank's images."""
        found: dict[int, Detections] = {}
        for number, batch in enumerate(self._loader, start=1):
            boxes = self.detector.detections(session.predict(batch.images), batch.sizes, self.config)
            for image_id, one in list(zip(batch.image_ids.tolist(), boxes, strict=True))[: batch.count]:
                found[image_id] = one
            if progress:
                progress(number, len(self._loader))
        return found

    def score(self) -> CocoScores:
        """COCO's metric of the boxes found."""
        self.scores = evaluate(
            self.truth, self.results(), max_det=self.config.eval.max_det, evaluator=self.config.eval.evaluator
        )
        return self.scores

    def results(self) -> list[dict[str, Any]]:
        """The last detections in COCO's result format."""
        return to_coco(self.found, self.dataset.category_ids)

    def attend(self, cancelled: Callable[[], bool], say: Callable[[str], None]) -> None:
        """See the loader's own."""
        self._loader.attend(cancelled, say)

    def close(self) -> None:
        self._loader.close()
