"""SIGTERM to `portdet align` alone: the training that it has started saves its state and ends before it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.backends.harness import ROOT, require

TINY = ["imgsz=64", "scene_size=64", "train_count=8", "val_count=4", "batch=4", "model.width=0.0625", "workers=0",
        "threads=1", "epochs=2000"]  # fmt: skip


def children(pid: int) -> list[int]:
    """All processes below a process."""
    direct = [
        int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()
    ]
    return direct + [below for child in direct for below in children(child)]


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
            below = children(align.pid)
            assert below
            align.send_signal(signal.SIGTERM)  # to it alone, as a service manager or `kill` does
            _, errors = align.communicate(timeout=60)
            end = time.monotonic() + 5
            while (alive := [pid for pid in below if Path(f"/proc/{pid}").exists()]) and time.monotonic() < end:
                time.sleep(0.05)
        finally:
            with contextlib.suppress(ProcessLookupError):  # if nothing is left
                os.killpg(align.pid, signal.SIGKILL)
    assert (align.returncode, alive) == (130, [])
    assert "interrupted" in errors
    folder = tmp_path / "align" / "yolov3_scenes" / "torch"
    assert (folder / "weights" / "last.safetensors").is_file(), (folder / "log.txt").read_text()
