"""What the Paddle backend says about devices, threads, MindSpore beside it, and the installation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from portdet_paddle.start import mkl_kind
from tests.backends.paddle_process import run_python

SOURCE = """from paddle import nn


class Net(nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2D(3, 2, 1)

    def forward(self, images, boxes=None, labels=None, valid=None):
        return self.conv(images)
"""

REFUSED = """
import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # where there are cards, they are out of sight
from portdet.errors import PortdetError

names = {"conv.weight": "conv.weight", "conv.bias": "conv.bias"}
source = Source(Path("net.py").read_text(), Path("net.py"))

def refusal(**options):
    try:
        BACKEND.open_session(source, "Net", Recipe(()), names, Options(**{"threads": 1, **options}))
    except PortdetError as error:
        print(str(error).replace("\\n", " "))
    else:
        print("opened", options)

assert "paddle" not in sys.modules
sys.modules["mindspore"] = sys
refusal()
del sys.modules["mindspore"]
for device in ("Ascend", "npu:0", "cuda:1", "tpu", "cpu:x"):
    refusal(device=device)
refusal(threads=3)
refusal(precision="float64")
session = BACKEND.open_session(source, "Net", Recipe(()), names, Options(threads=1))
print(session.facts())
weights = session.weights()
for change in ({"conv.bias": None}, {"conv.bias": np.zeros(3, "f4")}):
    try:
        session.load_weights({k: v for k, v in {**weights, **change}.items() if v is not None})
    except PortdetError as error:
        print(str(error).replace("\\n", " "))
session.close()
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("devices")
    (folder / "net.py").write_text(SOURCE)
    return run_python(REFUSED, folder).strip().splitlines()


def test_mindspore_in_the_process(said: list[str]) -> None:
    assert "mindspore is already imported" in said[0]
    assert "process of its own" in said[0]


@pytest.mark.parametrize(("line", "name"), [(1, "Ascend"), (2, "npu:0")])
def test_absent_ascend(said: list[str], line: int, name: str) -> None:
    assert f"device '{name}'" in said[line]
    assert "paddle-custom-npu" in said[line]
    assert "--backend mindspore" in said[line]


def test_absent_cuda(said: list[str]) -> None:
    assert "device 'cuda:1': paddle" in said[3]
    assert "paddlepaddle-gpu" in said[3]


def test_unknown_devices(said: list[str]) -> None:
    assert "unknown device 'tpu' for paddle" in said[4]
    assert "unknown device 'cpu:x' for paddle" in said[5]


def test_threads_cannot_change_after_the_import(said: list[str]) -> None:
    assert "already imported with OMP_NUM_THREADS=1, 3 threads are asked for" in said[6]


def test_other_precisions_are_refused(said: list[str]) -> None:
    assert "float64" in said[7]


def test_facts(said: list[str]) -> None:
    assert "'paddle': '3." in said[8]
    assert "'device': 'cpu'" in said[8]
    assert "'threads': '1'" in said[8]


def test_wrong_weights(said: list[str]) -> None:
    assert "1 weights missing, first 'conv.bias'" in said[9]
    assert "'conv.bias' is (2,) in the model, (3,) in the file" in said[10]


def test_doctor_and_lazy_import(tmp_path: Path) -> None:
    script = "assert 'paddle' not in sys.modules\nfor c in BACKEND.doctor(): print(c.level, c.what)\n"
    lines = run_python(script + "assert 'paddle' not in sys.modules\n", tmp_path).strip().splitlines()
    assert {line.split()[0] for line in lines} <= {"ok", "warn"}
    assert any(line.startswith("ok paddle 3.") for line in lines)
    assert "ok device cpu" in lines


def test_doctor_survives_a_broken_paddle(tmp_path: Path) -> None:
    (tmp_path / "paddle.py").write_text("raise ImportError('libdnnl is missing')")
    script = "import os\nos.environ['PYTHONPATH'] = os.getcwd()\nprint(*BACKEND.doctor(), sep='\\n')\n"
    said = run_python(script, tmp_path)
    assert "level='fail', what='paddle does not run, exit code 1: ImportError: libdnnl is missing'" in said


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("vendor_id : AuthenticAMD\nflags : sse2 avx2 avx512f avx512dq", "7"),
        ("vendor_id : AuthenticAMD\nflags : sse2 avx2 bmi2", "5"),
        ("vendor_id : AuthenticAMD\nflags : sse2", ""),
        ("vendor_id : GenuineIntel\nflags : avx2 avx512dq", ""),
    ],
)
def test_mkl_kernels(tmp_path: Path, text: str, kind: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert mkl_kind(tmp_path / "cpuinfo") == kind
    assert mkl_kind(tmp_path / "absent") == ""


def test_importing_the_backend_imports_no_framework() -> None:
    code = "import sys, portdet_paddle; assert not {'paddle', 'torch', 'mindspore'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)}, cwd=Path.cwd())
