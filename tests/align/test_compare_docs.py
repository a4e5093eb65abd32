"""The example of docs/comparing.md as a stranger would use it: his net, his port of it, one command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from portdet.align.published import read_reference
from portdet.cli.__main__ import run

PAGE = (Path(__file__).parents[2] / "docs" / "comparing.md").read_text(encoding="utf-8")


def net(eps: float) -> Any:
    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4, eps=eps), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1)
    return torch.nn.Sequential(*layers).eval()


def test_the_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE, re.S)[0], code)
    torch.manual_seed(0)
    original, port, wrong = net(1e-5), net(1e-5), net(1e-3)
    weights = {name: tensor.numpy().copy() for name, tensor in original.state_dict().items()}
    weights["1.running_var"] = np.array([0.1, 0.2, 0.3, 0.1], np.float32)
    images = torch.randn(2, 3, 8, 8).numpy()
    (tmp_path / "selves").mkdir()
    code["dump"](original, weights, images, tmp_path / "original.safetensors")
    code["runs"](original, weights, images, tmp_path / "selves", "self", range(16))
    code["runs"](port, weights, images, tmp_path, "port", range(100, 103))
    code["runs"](wrong, weights, images, tmp_path, "wrong", range(100, 103))
    words = ["compare", str(tmp_path / "original.safetensors"), "--self", str(tmp_path / "selves")]
    assert run([*words, *(str(tmp_path / f"port{seed}.safetensors") for seed in range(100, 103))]) == 0
    capsys.readouterr()
    assert run([*words, *(str(tmp_path / f"wrong{seed}.safetensors") for seed in range(100, 103))]) == 1
    said = capsys.readouterr().out
    assert "Different, first in forward/1: it lies apart by 4." in said
    assert "All 1 before it agree" in said


def test_the_table_of_the_page_is_one(tmp_path: Path) -> None:
    block = re.findall(r"\n((?:    (?:title|source|trained|epochs|spread|  AP|curves|  name|   ).*\n)+)", PAGE)
    (text,) = [part for part in block if "title:" in part]
    (tmp_path / "table.yaml").write_text(text)
    assert read_reference(str(tmp_path / "table.yaml")).allowed("AP")[2] == pytest.approx((0.398, 0.422))
