"""What watching a training step costs: `python -m tests.align.sketch_cost [WIDTH SIDE BATCH ROUNDS]`.

Steps of a YOLOv3 in PyTorch with two threads, in turn: plain; with hooks on all activations, gradients and weights,
written to a dump; and the same as sketches, compared with a stored reference at once. Prints seconds and ratios; on a
machine that others use, believe the processor's seconds sooner than the clock's.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from portdet.align.compare import Dump, DumpWriter, Envelope, compare
from portdet.align.compare.sketch import Sketches
from portdet.backends import load_backend, source_text
from portdet.lower.names import native_names
from portdet.models import load_model
from portdet.session import Arrays, Batch, Options, Session, Source, StepValues
from tests.align.compare_case import recipe

VALUES = StepValues(lr=1e-6, ema_decay=0.9)


def opened(width: float, side: int, images: int, folder: Path) -> tuple[Session, Batch]:
    """A YOLOv3 with all 52 convolutions of DarkNet53, and a batch of three boxes an image."""
    detector = load_model({"name": "yolov3", "classes": 20, "width": width}, imgsz=side, max_boxes=8)
    random = np.random.RandomState(0)
    weights: Arrays = {}
    for name, info in detector.graph.weights().items():
        scale = 1 / np.sqrt(np.prod(info.shape[1:])) if len(info.shape) == 4 else 0.0
        offset = 1.0 if name.endswith(("norm.weight", "running_var")) else 0.0
        weights[name] = (random.standard_normal(info.shape) * scale + offset).astype(np.float32)
    boxes = np.tile(np.array([[4, 6, 40, 50], [20, 30, 60, 64], [8, 8, 30, 20]], np.float32), (images, 1, 1))
    padded = np.zeros((images, 8, 4), np.float32)
    padded[:, :3] = boxes
    valid = np.zeros((images, 8), bool)
    valid[:, :3] = True
    pictures = random.standard_normal((images, 3, side, side)).astype(np.float32)
    batch = Batch(pictures, padded, np.zeros((images, 8), np.int32), valid, np.arange(images))
    target = load_backend("torch").target
    source = Source(source_text(detector, target), folder / "model_torch.py")
    names = native_names(detector.graph, target)
    options = Options(mode="eager", threads=2)
    chosen = replace(recipe(detector), ema=False)
    session = load_backend("torch").open_session(source, detector.graph.class_name, chosen, names, options)
    session.load_weights(weights)
    return session, batch


def observed(session: Any, batch: Batch, put: Callable[..., None]) -> None:
    from portdet_torch import hooks

    with hooks.collected(session.model, put):
        session.train_step(batch, VALUES)
    hooks.weight_gradients(session.model, put)
    hooks.weights(session.model, put)


def main() -> None:
    width, side, images, rounds = [float(x) for x in sys.argv[1:]] or [0.5, 160, 2, 12]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        session, batch = opened(width, int(side), int(images), folder)
        stored, calm = folder / "stored.safetensors", Envelope()
        with DumpWriter(stored) as out:
            observed(session, batch, Sketches(out.put))
        reference = dict(Dump(stored))
        calm.add(reference, reference)

        def dumped() -> None:
            with DumpWriter(folder / "full.safetensors") as out:
                observed(session, batch, out.put)

        def sketched() -> None:
            found: Arrays = {}
            observed(session, batch, Sketches(found.__setitem__))
            compare(reference, [found], calm)

        ways = {"plain": lambda: session.train_step(batch, VALUES), "dump": dumped, "sketches": sketched}
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        busy: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(int(rounds) + 2):
            for way, run in ways.items():
                start, cpu = time.perf_counter(), time.process_time()
                run()
                if turn >= 2:
                    seconds[way].append(time.perf_counter() - start)
                    busy[way].append(time.process_time() - cpu)
        full, small = (path.stat().st_size for path in (folder / "full.safetensors", stored))
        print(
            f"{len(reference)} arrays; dump {full / 1e6:.0f} MB, sketches {small / 1e6:.2f} MB; load {os.getloadavg()}"
        )
        for way, times in seconds.items():
            pairs = [t / p for t, p in zip(times, seconds["plain"], strict=True)]
            print(f"{way:9} median {median(times):.3f} s, best {min(times):.3f}; to plain: medians "
                  f"{median(times) / median(seconds['plain']):.2f}, best {min(times) / min(seconds['plain']):.2f}, "
                  f"pairs {median(pairs):.2f}; processor {median(busy[way]):.3f} s, to plain "
                  f"{median(busy[way]) / median(busy['plain']):.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
