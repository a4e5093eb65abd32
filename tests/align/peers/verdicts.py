"""Two ports of PP-YOLO that nobody here wrote, compared through the library: their true differences are named.

Needs the sources of both programs, so it is no part of `make test`:

    PORTDET_PPDET=folder PORTDET_MIEMIE=folder python -m pytest tests/align/peers/verdicts.py

The folders: see run.py. PORTDET_PEERS_OUT: where dumps are kept between runs.
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

import pytest

from portdet.align.compare import Result
from tests.align.peers import run
from tests.backends.harness import require


@functools.cache
def folder() -> Path:
    require("torch")
    require("paddle")
    return Path(os.environ.get("PORTDET_PEERS_OUT") or tempfile.mkdtemp())


@functools.cache
def held(name: str) -> Result:
    return run.held(folder(), name)[0]


def statuses() -> dict[str, str]:
    return {finding.name: finding.status for finding in run.rules(folder()).findings}


def test_coordinates_are_named_first() -> None:
    """CoordConv's range: up to release 2.1 and in miemiedetection -1 to 1, since 2.2 -1 to -0.5."""
    result = held("r50vd_dcn as they are")
    first = result.first
    assert first is not None
    assert first.name.startswith("forward/neck.yolo_block.0.conv_module.conv0"), result.words()
    assert not any(f.guilty for f in result.findings if f.level in ("weights", "targets"))
    assert not any(f.guilty for f in result.findings if f.name.startswith("forward/backbone"))


def test_clipping_is_named_first_where_no_coordinates_are() -> None:
    """PaddleDetection's configuration clips gradients at a norm of 35, miemiedetection's not at all."""
    result = held("r18vd as they are")
    assert result.first is not None
    assert result.first.name.startswith("step/momentum/"), result.words()


@pytest.mark.parametrize("name", ["r18vd, no clip", "r50vd_dcn, old coordinates, no clip"])
def test_then_only_the_running_variance_differs(name: str) -> None:
    """Paddle's, of a CPU, is of the biased variance of a batch."""
    result = held(name)
    guilty = {finding.name.removesuffix("#largest") for finding in result.guilty()}
    assert guilty, result.words()
    assert all(found.startswith("step/weights/") and found.endswith("._variance") for found in guilty), result.words()


SAME = {
    "dropblock/out", "decode/boxes", "decode/scores", "decode/scores of an image of 170 pixels",
    "nms/scores if boxes are a pixel larger for none", "nms/best 100 of 1200 candidates", "ema/decay",
    "ema/evaluated after 3 steps", "lr/after 4000 steps",
}  # fmt: skip
DIFFERENT = {
    "coord/x": "-1 to -0.5 against -1 to 1",
    "coord/y": "the same",
    "decode/boxes at the border": "clipped to the last pixel, 95, against 96",
    "decode/boxes below the threshold": "0 in Paddle's operator",
    "decode/boxes at the border below the threshold": "the same",
    "decode/scores below the threshold": "the same",
    "decode/boxes of an image of 170 pixels": "its size found again from a float32 factor: 169",
    "decode/boxes at the border of an image of 170 pixels": "the same",
    "nms/scores": "sides a pixel longer in Paddle's overlap",
    "nms/rows of 1200 candidates": "the best 500 of all classes against all",
    "nms/rows where nothing is left": "a row of -1 against none",
    "ema/evaluated once more": "evaluation divides the average itself",
    "ema/shadow a step later": "the same",
    "clip/gradients of weights": "each group by its own norm against all by one",
    "clip/gradients of norms": "the same",
    "lr/during warm-up": "5 epochs against 4000 steps",
}


def test_rules_that_differ_and_rules_that_do_not() -> None:
    found = statuses()
    assert {name for name, status in found.items() if status in ("same", "noise")} == SAME
    assert {name for name, status in found.items() if status in ("different", "broken")} == set(DIFFERENT)
