"""Emitted sources: short, clean, the same for every batch size, and independent of portdet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from portdet.backends import backend_names
from portdet.cli.__main__ import run
from tests.patience import GUARD

FULL = "model: {name: yolov3, classes: 80}\n"
TINY = "model: {name: yolov3, width: 0.0625, depths: [1, 1, 1, 1, 1], classes: 3}\ndata: {imgsz: 64}\n"
BACKENDS = [name for name in backend_names() if name in ("torch", "mindspore", "paddle")]


def emit(tmp_path: Path, backend: str, text: str, *words: str) -> Path:
    config, out = tmp_path / "c.yaml", tmp_path / f"{backend}_{'_'.join(words)}.py"
    config.write_text(text)
    assert run(["emit", str(config), "--backend", backend, "-o", str(out), *words]) == 0
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    return out


@pytest.mark.parametrize("backend", BACKENDS)
def test_full_source_is_short_clean_and_the_same_for_any_shape(backend: str, tmp_path: Path) -> None:
    first = emit(tmp_path, backend, FULL, "batch=1")
    other = emit(tmp_path, backend, FULL, "batch=8", "imgsz=320", "max_boxes=7")
    assert first.read_text() == other.read_text()
    assert len(first.read_text().splitlines()) < 265  # of them some ten that compute what a kernel does not
    ruff = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--line-length",
        "120",
        "--select",
        "E,F,W,I,B",
        str(first),
    ]
    done = subprocess.run(ruff, capture_output=True, text=True, timeout=GUARD)
    assert done.returncode == 0, done.stdout
    assert "portdet" not in "".join(line for line in first.read_text().splitlines() if "import" in line)


def test_source_on_standard_output_is_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = emit(tmp_path, "torch", TINY)
    capsys.readouterr()
    assert run(["emit", str(tmp_path / "c.yaml")]) == 0
    assert capsys.readouterr().out == path.read_text()


def test_output_that_cannot_be_written_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(TINY)
    assert run(["emit", str(config), "-o", str(config / "model.py")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_emitted_torch_module_trains_where_portdet_is_not_installed(tmp_path: Path) -> None:
    """An importer that refuses portdet stands for its absence."""
    path = emit(tmp_path, "torch", TINY)
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, *_):
        if name.partition(".")[0].startswith("portdet"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import runpy, torch
model = runpy.run_path({str(path)!r})["YOLOv3"]()
boxes = torch.tensor([[[8.0, 8, 40, 40], [0, 0, 0, 0]]])
losses = model(torch.rand(1, 3, 64, 64), boxes, torch.zeros(1, 2, dtype=torch.int32), torch.tensor([[True, False]]))
losses["loss"].backward()
model.eval()
print(sorted(losses), sum(p.grad is not None for p in model.parameters()), tuple(model(torch.rand(1, 3, 64, 64)).shape))
assert not [name for name in sys.modules if name.startswith("portdet")]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=GUARD)
    assert done.returncode == 0, done.stderr
    # 3 boxes a cell of grids 8, 4 and 2; 52 convolutions, 49 of them with a norm of two weights, 3 with a bias
    assert "(1, 252, 8)" in done.stdout
    assert "'loss'" in done.stdout
