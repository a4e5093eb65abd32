"""How far a backend's results (`ppyolo_peer_child.py`) lie from PaddleDetection's (fixtures of `ppyolo_peer`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from portdet.models import Detector
from portdet.postprocess.detections import Detections
from portdet.session import Array, Arrays
from portdet.train.ema import Ema
from portdet_convert import ppyolo
from tests.backends import ppyolo_peer as peer
from tests.backends.harness import below
from tests.convert.ppyolo_case import value
from tests.models.ppyolo_case import merged

FACTORS = {"r50vd_dcn": 0.4, "v2": 0.5}
Apart = dict[str, float]


def canonical(variant: str, size: peer.Size) -> list[str]:
    """Our names of PaddleDetection's tensors, in its order."""
    naming = ppyolo.PPDET_PLAIN if variant == "r18vd" else ppyolo.PPDET
    found = [naming.canonical(name) for name, _, _ in peer.facts(size)[variant]["tensors"]]
    return [name[0] for name in found if name is not None]


def wanted(variant: str, size: peer.Size) -> Arrays:
    """What PaddleDetection computed, but for running variances: those of the steps as if Paddle had stored the unbiased
    ones (on a CPU it stores the biased ones), and the average that follows."""
    want = below(peer.outputs(size), variant)
    if size == "full":
        return want
    rows = want["weights"].astype(np.float64), want["ema"].astype(np.float64)
    average = Ema("threshold", 0.9998)
    for row, (name, _, shape) in enumerate(peer.facts(size)[variant]["tensors"]):
        if not name.endswith("._variance"):
            continue
        count = peer.facts(size)[variant]["counts"][name.removesuffix("._variance")]
        biased = unbiased = peer.summary(value(name, tuple(shape)))
        shadow = np.zeros_like(unbiased)
        for step in range(peer.STEPS):
            seen = rows[0][step, row] - 0.9 * biased
            biased = rows[0][step, row].copy()
            unbiased = 0.9 * unbiased + seen * count / (count - 1)
            shadow += (1 - average.decay(step)) * (unbiased - shadow)
            for table, now in zip(rows, (unbiased, shadow / average.correction(step + 1)), strict=True):
                table[step, row, 2:] = now[2:]
                table[step, row, :2] = np.nan
    return {**want, "weights": rows[0], "ema": rows[1]}


def heads(got: Arrays, want: Arrays, variant: str) -> float:
    """Largest difference of the heads' outputs."""
    worst = 0.0
    for level in range(2 if variant == "r18vd" else 3):
        ours = got[f"output{level}"]
        ours = merged(ours, FACTORS[variant]) if variant in FACTORS else ours
        ours = ours.reshape(-1)[:: 1 + ours.size // 6000]
        worst = max(worst, float(np.abs(ours - want[f"head{level}"]).max()))
    return worst


def losses(got: Arrays, want: Arrays) -> float:
    """Largest relative difference of the terms and of the total."""
    ours, theirs = below(got, "losses"), below(want, "losses")
    assert {f"loss_{name}" if name != "loss" else name for name in ours} == set(theirs)
    return max(abs(float(ours[name.removeprefix("loss_")]) / float(term) - 1) for name, term in theirs.items())


def gradients(got: Arrays, want: Arrays, names: list[str]) -> Apart:
    """Every tensor's largest difference, of its values and of its largest one and its norm, over its largest value."""
    theirs = {name: row for name, row in zip(names, want["gradients"], strict=True) if not np.isnan(row).all()}
    assert sorted(theirs) == got["trained"].tolist()
    return {
        name: max(float(np.nanmax(np.abs(ours - row)[1:]) / row[1]), abs(float(ours[0] / row[0]) - 1))
        for ours, (name, row) in zip(got["gradients"], sorted(theirs.items()), strict=True)
    }


def stepped(got: Arrays, want: Arrays, names: list[str], rounding: float) -> Apart:
    """The steps' worst differences beyond `rounding` of the largest value, as shares of how far a tensor has moved."""
    order = [got["names"].tolist().index(name) for name in names]
    worst: Apart = {}
    for kind in ("weights", "ema"):
        for step in range(1, peer.STEPS):  # nothing but statistics moves in the first: its learning rate is 0
            theirs, ours = want[kind][step], got[kind][step][order]
            moved = np.nanmax(np.abs(want["weights"][step] - want["weights"][0])[:, 2:], axis=1)
            largest = np.nanmax(np.abs(theirs[:, 2:]), axis=1)
            error = np.nanmax(np.abs(ours - theirs)[:, 2:], axis=1)
            share = np.maximum(error - rounding * largest, 0) / np.maximum(moved, 1e-30)
            worst |= {f"{kind} {step} {name}": float(s) for name, s in zip(names, share, strict=True)}
    return worst


def boxes(found: list[Detections], want: Arrays, tie: float, pixels: float, key: str = "boxes") -> list[str]:
    """What differs from PaddleDetection's boxes after NMS: nothing if each has its partner of the same class, a score
    within `tie` and corners within `pixels`. So the order differs among scores within `tie` at most; and of boxes
    within `tie` of the last one, either may be there. key 'other': miemiedetection's boxes."""
    problems = []
    for image, one in enumerate(found):
        rows = want[f"{key}{image}"]
        free = np.ones(len(one), bool)
        if len(one) != len(rows):
            problems.append(f"image {image}: {len(one)} boxes instead of {len(rows)}")
        for rank, (label, score, *corners) in enumerate(rows.tolist()):
            fits = free & (one.labels == label) & (np.abs(one.scores - score) <= tie)
            fits &= (np.abs(one.boxes - np.array(corners)) <= pixels).all(axis=1)
            if fits.any():
                free[np.flatnonzero(fits)[0]] = False
            elif score - rows[-1, 1] > tie:
                problems.append(f"image {image}: box {rank}, class {label:.0f}, score {score:.6f}, is not there")
    return problems


def detections(detector: Detector, variant: str, predictions: Array, **changed: Any) -> list[Detections]:
    """The boxes of a backend's own predictions."""
    config = peer.config(variant)
    config.eval = config.eval.model_copy(update=changed)
    return detector.detections(predictions.astype(np.float32), peer.SIZES, config)
