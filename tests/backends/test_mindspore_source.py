"""The generated MindSpore source: short, clean, the same for every batch size, and free of portdet. And the doctor."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from portdet.lower import emit
from portdet.models import load_model
from portdet_mindspore.doctor import numpy_check, speed_check
from portdet_mindspore.target import TARGET
from tests.backends.harness import ROOT, require
from tests.patience import GUARD

FULL = {"name": "yolov3"}
RUN = """
import os
os.environ["ONEDNN_MAX_CPU_ISA"], os.environ["GLOG_v"] = "AVX2", "3"
import sys, mindspore, model
assert "portdet" not in sys.modules
net = model.YOLOv3()
images = mindspore.ops.ones((1, 3, 64, 96), mindspore.float32)
assert net(images).shape == (1, 3 * (12 * 8 + 6 * 4 + 3 * 2), 8)
"""


def source(section: Mapping[str, object], **sizes: int) -> str:
    return emit(load_model(section, **sizes).graph, TARGET, title="YOLOv3.")


def test_full_yolov3_is_short_and_clean(tmp_path: Path) -> None:
    text = source(FULL)
    assert text.count("\n") < 265  # of them some ten that compute what a kernel does not
    (tmp_path / "model.py").write_text(text)
    command = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=GUARD, check=False)
    assert done.returncode == 0, done.stdout


def test_batch_and_image_size_do_not_enter() -> None:
    assert source(FULL, imgsz=416, batch=1) == source(FULL, imgsz=416, batch=8) == source(FULL, imgsz=320, batch=2)


def test_momentum_is_the_share_that_is_kept_and_pads_are_top_bottom_left_right() -> None:
    text = source(FULL)
    assert "nn.BatchNorm2d(cout, eps=1e-05, momentum=0.1)" in text  # backbone: 0.9 in the spec
    assert "nn.BatchNorm2d(cout, eps=1e-05, momentum=0.9)" in text  # neck and head: 0.1
    assert "kernel=3, stride=2, pads=(0, 1, 0, 1)" in text
    for momentum, kept in ((0.03, "0.97"), (0.3, "0.7"), (0.99, "0.01")):
        assert f"momentum={kept})" in source({**FULL, "momentum": momentum})


def test_it_runs_without_portdet(tmp_path: Path) -> None:
    require("mindspore")
    tiny = {"name": "yolov3", "classes": 3, "width": 0.125, "depths": (1, 1, 1, 1, 1)}
    (tmp_path / "model.py").write_text(source(tiny, imgsz=96))
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=GUARD,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(("version", "level"), [("1.26.4", "ok"), ("2.0.2", "fail"), ("2.4.6", "fail")])
def test_doctor_on_numpy(version: str, level: str) -> None:
    assert numpy_check(version).level == level


def test_doctor_on_a_slow_convolution() -> None:
    assert speed_check(0.02, "AVX2").level == "ok"
    slow = speed_check(2.24, "ALL")
    assert slow.level == "warn"
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in slow.advice


def test_doctor_of_this_machine() -> None:
    require("mindspore")
    code = "from portdet_mindspore import BACKEND\nfor c in BACKEND.doctor(): print(c.level, '|', c.what)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=GUARD, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert not [line for line in lines if line.startswith("fail")]
    assert any("device cpu: usable" in line and "ONEDNN_MAX_CPU_ISA=AVX2" in line for line in lines)
    assert any("mode compiled: graph mode works" in line for line in lines)


def test_doctor_beside_another_framework() -> None:
    code = (
        "import sys, types; sys.modules['paddle'] = types.ModuleType('paddle')\n"
        "from portdet_mindspore import BACKEND\nprint(BACKEND.doctor())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=GUARD, check=False)
    assert "level='fail'" in done.stdout
    assert "has imported paddle" in done.stdout
