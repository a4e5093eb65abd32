"""The generated Paddle source: short, clean, native layers, independent of the batch, runs without portdet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from portdet.lower import emit
from portdet.lower.names import native_names
from portdet.models import load_model
from portdet_paddle.target import TARGET
from tests.backends.paddle_process import ROOT, run_python


def source(batch: int, **fields: object) -> str:
    detector = load_model({"name": "yolov3", **fields}, imgsz=96, batch=batch)
    return emit(detector.graph, TARGET, title="YOLOv3 in Paddle.")


@pytest.fixture(scope="module")
def full() -> str:
    return source(1)


def test_the_batch_leaves_no_trace(full: str) -> None:
    assert full == source(8)


def test_is_short_and_clean(full: str, tmp_path: Path) -> None:
    assert full.count("\n") < 265  # of them some ten that compute what a kernel does not
    path = tmp_path / "model.py"
    path.write_text(full)
    command = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_numbers_are_written_out(full: str) -> None:
    assert "BatchNorm2D(cout, momentum=0.1, epsilon=1e-05)" in full  # backbone: 0.9 weighs the new value
    assert "BatchNorm2D(cout, momentum=0.9, epsilon=1e-05)" in full  # 1 - 0.1, in decimal
    assert "[0, 1, 0, 1]" in full  # top, bottom, left, right: padded at the bottom and right only
    assert "portdet" not in full


def test_weights_have_native_names() -> None:
    detector = load_model({"name": "yolov3", "width": 0.125, "depths": (1, 1, 1, 1, 1)}, imgsz=96)
    names = native_names(detector.graph, TARGET)
    assert names["backbone.conv0.norm.running_var"] == "backbone.conv0.norm._variance"
    assert names["backbone.conv0.norm.running_mean"] == "backbone.conv0.norm._mean"
    assert names["backblock0.conv6.bias"] == "backblock0.conv6.bias"


ALONE = """
import sys
sys.modules["portdet"] = sys.modules["portdet_paddle"] = None  # any import of them raises
import warnings
warnings.simplefilter("ignore")
import paddle
import model

net = model.YOLOv3()
images = paddle.randn([2, 3, 96, 96])
boxes = paddle.to_tensor([[[10.0, 20.0, 41.0, 63.0]]] * 2)
labels, valid = paddle.zeros([2, 1], "int32"), paddle.ones([2, 1], "bool")
losses = net(images, boxes, labels, valid)
losses["loss"].backward()
assert all(bool(paddle.isfinite(p.grad).all()) for p in net.parameters() if not p.stop_gradient)
net.eval()
assert net(images).shape == [2, 3 * (9 + 36 + 144), 8], net(images).shape
norms = [layer for layer in net.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
synced = paddle.nn.SyncBatchNorm.convert_sync_batchnorm(net)
print(len(norms), sum(isinstance(layer, paddle.nn.SyncBatchNorm) for layer in synced.sublayers()))
"""


def test_runs_without_portdet(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(source(2, classes=3, width=0.125, depths=(1, 1, 1, 1, 1)))
    found, synced = run_python(ALONE, tmp_path, portdet=False).split()[-2:]
    assert found == synced == str(6 + 2 * 5 + 18 + 2)  # stem and stages, residual blocks, three heads, two routes


def test_compiles_whole(tmp_path: Path) -> None:
    """to_static without its fallback to Python gives eager's losses."""
    (tmp_path / "model.py").write_text(source(2, classes=3, width=0.125, depths=(1, 1, 1, 1, 1)))
    script = ALONE.partition("losses =")[0] + (
        "run = paddle.jit.to_static(net.forward, full_graph=True)\n"
        "a, b = (f(images, boxes, labels, valid) for f in (net, run))\n"
        "assert all(abs(float(a[k]) - float(b[k])) <= 1e-6 * abs(float(a[k])) for k in a), (a, b)\n"
    )
    run_python(script, tmp_path, portdet=False)
