"""Generated source, held to committed files that people read in the diff (`make golden` writes them anew)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from portdet.backends import load_backend
from portdet.lower import emit
from portdet.models import load_model

GOLDEN = Path(__file__).parent / "golden"
TINY = {"name": "yolov3", "width": 0.125, "depths": (1, 1, 1, 1, 1), "classes": 3}


@pytest.mark.parametrize("backend", ["torch", "mindspore", "paddle"])
def test_golden_source(backend: str) -> None:
    source = emit(load_model(TINY, imgsz=128).graph, load_backend(backend).target, title="Tiny YOLOv3.")
    path = GOLDEN / f"yolov3_tiny_{backend}.py"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    assert source == path.read_text(), "run `make golden` and read the difference"


def test_a_changed_spec_changes_the_source() -> None:
    target = load_backend("torch").target
    one, other = (
        emit(load_model({**TINY, "ignore_threshold": t}, imgsz=128).graph, target, title="") for t in (0.7, 0.5)
    )
    assert one != other
