"""Makes `ppyolo_augment.npz` with PaddleDetection's own operators, fed with the draws of `ppyolo_augment_case`.

    PORTDET_PPDET=folder python -m tests.data.make_ppyolo_augment_fixture

The folder holds PaddleDetection's `ppdet` (release/2.4, 38f695e; Apache-2.0); nothing of it is in this repository. Its
sample and batch transforms run in the order and with the settings of configs/ppyolo/_base_/ppyolo_reader.yml, on one
image at a time, with numpy's global generator replaced by the draws; kept is what they give up to Gt2YoloTarget. Made
with numpy 1.26.4 and OpenCV 4.11.0; neither Paddle nor the rest of ppdet is imported.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np

from portdet.data.augment_ppyolo import FILL, NO_CROP
from portdet.session import Arrays
from tests.data.ppyolo_augment_case import COUNT, EVAL_SIDE, FILE, LIMIT, MEAN, SIDE, STD, Case, case

REAL = {"ppdet": "ppdet", "ppdet.data": "ppdet/data", "ppdet.data.transform": "ppdet/data/transform"}
ABSENT = ("ppdet.core", "ppdet.modeling", "ppdet.utils", "ppdet.data.reader", "ppdet.data.transform.atss_assigner")


class _Shell(ModuleType):
    """A package without content of its own: whatever is taken from it returns its first argument."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *given, **_: given[0] if given else None


class _Shells(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the packages around the two modules of operators, empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if name in REAL or name.startswith(ABSENT):
            return importlib.machinery.ModuleSpec(name, self)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        shell = _Shell(spec.name)
        shell.__path__ = [str(self.folder / REAL[spec.name])] if spec.name in REAL else []
        return shell

    def exec_module(self, module: ModuleType) -> None: ...


@contextmanager
def forced(uniform: Sequence[float] = (), **others: Any) -> Iterator[None]:
    """numpy's global generator gives these uniform numbers, scaled as it would scale its own."""
    left = iter(uniform)

    def number(low: float, high: float) -> float:
        return float(low + (high - low) * next(left))

    def integer(low: int, high: int) -> int:
        return low + int((high - low) * next(left))

    with patch.multiple(np.random, uniform=number, randint=integer, **others):
        yield


def shuffled(order: Any) -> Any:
    """`shuffle` that puts a list into a given order."""

    def shuffle(values: list[Any]) -> None:
        values[:] = [values[i] for i in order]

    return shuffle


def augmented(operators: Any, one: Case) -> Any:
    """The sample transforms of ppyolo_reader.yml."""
    samples = [
        {"image": image, "gt_bbox": boxes.copy(), "gt_class": labels[:, None]}
        for image, boxes, labels in zip(one.images, one.boxes, one.labels, strict=True)
    ]
    d = one.drawn
    sample: Any = samples if len(samples) == 2 else samples[0]
    with forced(beta=lambda *_: d.share):
        sample = operators.Mixup(alpha=1.5, beta=1.5)(sample)
    changes = [[d.skip[c]] if d.skip[c] < 0.5 else [d.skip[c], d.amount[c]] for c in d.changes]
    with forced(np.concatenate(changes).tolist(), permutation=lambda them: [them[c] for c in d.changes]):
        sample = operators.RandomDistort()(sample)
    skip, ratio, left, top = d.expand.tolist()
    with forced([skip, ratio, top, left]):
        sample = operators.RandomExpand(fill_value=list(FILL))(sample)
    tries = [d.crops[number].ravel() for number in d.thresholds if number != NO_CROP]
    with forced(np.concatenate(tries).tolist(), shuffle=shuffled(d.thresholds)):
        sample = operators.RandomCrop()(sample)
    with forced([d.flip]):
        return operators.RandomFlip()(sample)


def batched(operators: Any, batch: Any, sample: Any, method: int) -> Any:
    """The batch transforms, before the targets."""

    def choice(values: Any) -> Any:
        return 0 if isinstance(values, int) else values[method]

    samples = [sample]
    with forced(choice=choice):
        samples = batch.BatchRandomResize([SIDE], keep_ratio=False, random_size=True, random_interp=True)(samples)
    for step in (
        operators.NormalizeBox(),
        operators.PadBox(num_max_boxes=LIMIT),
        operators.BboxXYXY2XYWH(),
        operators.NormalizeImage(mean=list(MEAN), std=list(STD), is_scale=True),
        operators.Permute(),
    ):
        samples = step(samples)
    return samples[0]


def evaluated(operators: Any, image: Any) -> Any:
    """The transforms of EvalReader."""
    sample = {"image": image}
    for step in (
        operators.Resize([EVAL_SIDE, EVAL_SIDE], keep_ratio=False, interp=2),
        operators.NormalizeImage(mean=list(MEAN), std=list(STD), is_scale=True),
        operators.Permute(),
    ):
        sample = step(sample)
    return sample["image"]


def main() -> None:
    folder = Path(os.environ["PORTDET_PPDET"])
    sys.meta_path.insert(0, _Shells(folder))
    operators = importlib.import_module("ppdet.data.transform.operators")
    batch = importlib.import_module("ppdet.data.transform.batch_operators")
    found: dict[str, list[Any]] = {"image": [], "gt_bbox": [], "gt_class": [], "gt_score": []}
    for number in range(COUNT):
        one = case(number)
        sample = batched(operators, batch, augmented(operators, one), one.method)
        sample.setdefault("gt_score", np.ones(LIMIT, np.float32))  # as Gt2YoloTarget does
        for name, values in found.items():
            values.append(sample[name])
    arrays: Arrays = {name: np.stack(values) for name, values in found.items()}
    arrays["image"] = arrays["image"].astype(np.float32)
    arrays["eval"] = np.stack([evaluated(operators, case(number).images[0]) for number in range(4)])
    np.savez_compressed(FILE, **arrays)
    print({name: (array.shape, array.dtype) for name, array in arrays.items()})


if __name__ == "__main__":
    main()
