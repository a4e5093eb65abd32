"""SIGTERM to `portdet align` alone: the training that it has started saves its state and ends before it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.backends.harness import ROOT, require
from tests.patience import GUARD, running, until

TINY = ["imgsz=64", "scene_size=64", "train_count=8", "val_count=4", "batch=4", "model.width=0.0625", "workers=0",
        "threads=1", "epochs=2000"]  # fmt: skip


def test_sigterm_ends_the_training_first(tmp_path: Path) -> None:
    require("torch")
    path = os.pathsep.join(map(str, (ROOT, ROOT / "backends", ROOT / "weights_convert")))
    words = ["align", "yolov3_scenes", "--backends", "torch", f"project={tmp_path}", *TINY]
    with subprocess.Popen(
        [sys.executable, "-m", "portdet", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    ) as align:  # fmt: skip
        try:
            assert align.stdout is not None
            assert any("epoch 3/2000" in line for line in align.stdout)
            below = [process.pid for process in psutil.Process(align.pid).children(recursive=True)]
            assert below
            align.send_signal(signal.SIGTERM)  # to it alone, as a service manager or `kill` does
            _, errors = align.communicate(timeout=GUARD)
            until(lambda: not any(map(running, below)), "the end of all that it had started")
        finally:
            with contextlib.suppress(ProcessLookupError):  # if nothing is left
                os.killpg(align.pid, signal.SIGKILL)
    assert align.returncode == 130
    assert "interrupted" in errors
    folder = tmp_path / "align" / "yolov3_scenes" / "torch"
    assert (folder / "weights" / "last.safetensors").is_file(), (folder / "log.txt").read_text()
