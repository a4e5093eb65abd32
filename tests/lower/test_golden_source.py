"""Generated source, held to committed files that people read in the diff (`make golden` writes them anew)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from portdet.backends import load_backend
from portdet.lower import emit
from portdet.models import load_model

GOLDEN = Path(__file__).parent / "golden"
TINY = {"name": "yolov3", "width": 0.125, "depths": (1, 1, 1, 1, 1), "classes": 3}
FULL = {"name": "yolov3"}


@pytest.mark.parametrize("backend", ["torch", "mindspore", "paddle"])
def test_golden_source(backend: str) -> None:
    source = emit(load_model(TINY, imgsz=128).graph, load_backend(backend).target, title="Tiny YOLOv3.")
    path = GOLDEN / f"yolov3_tiny_{backend}.py"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    assert source == path.read_text(), "run `make golden` and read the difference"


@pytest.mark.parametrize("backend", ["torch", "mindspore", "paddle"])
def test_the_full_model_is_short_clean_and_independent_of_sizes(backend: str, tmp_path: Path) -> None:
    target = load_backend(backend).target
    sources = {
        emit(load_model(FULL, imgsz=imgsz, batch=batch, max_boxes=boxes).graph, target, title="YOLOv3.")
        for imgsz, batch, boxes in ((416, 1, 50), (416, 8, 50), (320, 2, 160))
    }
    assert len(sources) == 1
    source = sources.pop()
    assert len(source.splitlines()) < 250
    assert "portdet" not in source
    path = tmp_path / "model.py"
    path.write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "120", "--select", "E,F,W,I,B", path],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_a_changed_spec_changes_the_source() -> None:
    target = load_backend("torch").target
    one, other = (
        emit(load_model({**TINY, "ignore_threshold": t}, imgsz=128).graph, target, title="") for t in (0.7, 0.5)
    )
    assert one != other
