"""A `.pdparams` as PaddleDetection writes it for YOLOv3-DarkNet53: converted, it computes what PaddleDetection did.

The file is written here by Paddle's own `save` from weights by formula; `make_ppdet_fixture` found it equal, byte for
byte, to the one that PaddleDetection wrote, and measured what PaddleDetection computes with it. 62 M parameters, images
of 96 px, float32.

Bound: 1e-5 of the largest value. Measured for heads, boxes, scores, losses: torch 1.9e-6, 1.9e-6, 1.8e-6, 3.8e-6;
MindSpore 9e-7, 2.5e-6, 1.2e-6, 5e-7; Paddle 1.2e-6, 1.9e-6, 8e-7, 5e-7. The smallest of the planted faults is 5e-5.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from portdet.processes.child import run_child
from portdet.reference.distance import distance
from portdet.session import Array, Arrays
from portdet_convert import Report, convert, open_weights, yolov3
from portdet_convert.command import convert as convert_command
from portdet_convert.files import pdparams
from portdet_convert.rules import recognise, restore
from tests.backends.harness import require
from tests.convert.ppdet_case import OUTPUTS, SIDE, digest, facts, kept_boxes
from tests.patience import GUARD

HEADS = ("head0", "head1", "head2")
FORMATS = {"torch": "pth", "mindspore": "ckpt", "paddle": "pdparams"}
COMPARED = (*HEADS, "boxes", "scores", "loss_xy", "loss_wh", "loss_obj", "loss_cls", "loss")
BOUND = 1e-5

_LATER = [
    "activation",  # ReLU in the backbone, as mindspore-ai/models has it
    "padding",  # at bottom and right alone, as mindspore-ai/models has it
    "eps 1e-3",  # of TensorFlow's batch norm
    "swap backblock0.conv1.conv.weight backblock0.conv5.conv.weight",
    "swap backblock2.conv3.norm.weight backblock2.conv3.norm.bias",
    "swap backbone.layer4.0.conv2.norm.running_mean backbone.layer4.0.conv2.norm.running_var",
]
FAULTS = [
    "eps 1e-6",  # the least that shows: 5e-5
    "swap backbone.layer3.2.conv1.conv.weight backbone.layer3.3.conv1.conv.weight",
    *(pytest.param(fault, marks=pytest.mark.slow) for fault in _LATER),
]


@pytest.fixture(scope="module")
def written() -> Iterator[Path]:
    """The file; 248 MB, so neither it nor what is made of it stays behind."""
    require("paddle")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model_final.pdparams")
        run_child("tests.convert.ppdet_write", {"to": str(path)}, timeout=GUARD, env={"OMP_NUM_THREADS": "1"})
        yield path


@pytest.fixture(scope="module")
def wanted() -> Arrays:
    """What PaddleDetection computed."""
    with np.load(OUTPUTS) as stored:
        return dict(stored)


def outputs(weights: Path, backend: str, fault: str = "") -> Arrays:
    to = weights.parent / f"{backend}.npz"
    request = {"weights": str(weights), "backend": backend, "fault": fault, "to": str(to)}
    env = {"OMP_NUM_THREADS": "1", "ONEDNN_MAX_CPU_ISA": os.environ.get("ONEDNN_MAX_CPU_ISA", "AVX2")}
    run_child("tests.convert.ppdet_child", request, timeout=GUARD, env=env)
    with np.load(to) as found:
        return dict(found)


def yolo_box(rows: Array) -> Arrays:
    """Predictions (B, N, 85), strides 8, 16, 32, anchors innermost, as ppdet's `YOLOBox` has them: strides 32, 16, 8,
    anchors outermost; corners in pixels, clipped to the last one; each class times objectness."""
    grids = [SIDE // stride for stride in (8, 16, 32)]
    levels = np.split(rows, np.cumsum([3 * g * g for g in grids])[:-1], axis=1)
    turned = [level.reshape(2, -1, 3, 85).swapaxes(1, 2).reshape(2, -1, 85) for level in reversed(levels)]
    rows = np.concatenate(turned, axis=1)
    half = rows[..., 2:4] / 2
    corners = np.concatenate([rows[..., :2] - half, rows[..., :2] + half], axis=2) * SIDE
    return kept_boxes(corners.clip(0, SIDE - 1), (rows[..., 5:] * rows[..., 4:5]).swapaxes(1, 2))


def test_every_tensor_has_a_place(written: Path) -> None:
    """And the bits are those that PaddleDetection had in its model."""
    assert digest(open_weights(written).arrays) == facts()["sha256"]
    report: Report = convert(written, written.with_suffix(".npz"))
    assert (report.source_format, report.naming, len(report.rows), report.skipped) == ("pdparams", "ppdet", 366, {})
    assert {row.source for row in report.rows} == {name for name, _, _ in facts()["tensors"]}


@pytest.mark.parametrize("backend", FORMATS)
def test_outputs_are_ppdets(backend: str, written: Path, wanted: Arrays) -> None:
    """By way of the backend's own format, with the command."""
    require(backend)
    converted = written.with_name(f"converted.{FORMATS[backend]}")
    done = CliRunner().invoke(convert_command, [str(written), "-o", str(converted)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = outputs(converted, backend)
    found |= yolo_box(found.pop("rows"))
    apart = {name: distance(found[name], wanted[name]) for name in COMPARED}
    assert max(apart.values()) <= BOUND, apart


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen(fault: str, written: Path, wanted: Arrays) -> None:
    require("torch")
    found = outputs(written, "torch", fault)
    apart = [distance(found[head], wanted[head]) for head in HEADS]
    assert max(apart) > 3 * BOUND


def test_back_to_ppdets_file(written: Path) -> None:
    """By way of our names in another format: the same tensors under the same names."""
    ours, back = written.with_name("ours.safetensors"), written.with_name("back.pdparams")
    convert(written, ours)
    found = recognise(open_weights(ours).arrays, yolov3.NAMINGS, yolov3.expected)
    pdparams.write(back, restore(yolov3.PPDET, found.arrays)[0])
    arrays = open_weights(back).arrays
    assert digest({name: arrays[name] for name, _, _ in facts()["tensors"]}) == facts()["sha256"]
    assert len(arrays) == 366
