"""Scoring a session on a data set: predict, decode, suppress, COCO's metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from portdet.config import Config
from portdet.data.loader import EvalLoader
from portdet.data.records import Dataset
from portdet.evaluate.coco_map import CocoScores, evaluate
from portdet.models import Detector
from portdet.postprocess.detections import Detections, to_coco
from portdet.session import Session


@dataclass
class Validator:
    """Validates any session on one data set; keeps the last scores and detections for tables and pictures."""

    config: Config
    detector: Detector
    dataset: Dataset
    truth: dict[str, Any] = field(init=False)
    found: dict[int, Detections] = field(default_factory=dict)
    scores: CocoScores | None = None
    _loader: EvalLoader = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.truth = self.dataset.coco_ground_truth()
        fields = self.detector.fields
        self._loader = EvalLoader(self.dataset, self.config, mean=fields.mean, std=fields.std)

    def __call__(self, session: Session, epoch: int = 0) -> dict[str, float]:
        """COCO's twelve numbers by name; -1 where undefined."""
        return self.run(session).numbers

    def run(self, session: Session, progress: Callable[[int, int], None] | None = None) -> CocoScores:
        """Score the session as it is. progress(batch, batches) is called after each batch."""
        found: dict[int, Detections] = {}
        for number, batch in enumerate(self._loader, start=1):
            boxes = self.detector.detections(session.predict(batch.images), batch.sizes, self.config)
            for image_id, one in list(zip(batch.image_ids.tolist(), boxes, strict=True))[: batch.count]:
                found[image_id] = one
            if progress:
                progress(number, len(self._loader))
        self.found = found
        self.scores = evaluate(
            self.truth, self.results(), max_det=self.config.eval.max_det, evaluator=self.config.eval.evaluator
        )
        return self.scores

    def results(self) -> list[dict[str, Any]]:
        """The last detections in COCO's result format."""
        return to_coco(self.found, self.dataset.category_ids)

    def close(self) -> None:
        self._loader.close()
