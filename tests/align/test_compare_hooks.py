"""The three backends' hooks on one net written by hand three times, dumped, and compared across frameworks."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from portdet.align.compare import Dump, Envelope, Result, compare
from portdet.align.compare.collect import Collector
from tests.backends.harness import ROOT, require
from tests.patience import GUARD

SELF, OURS = range(16), range(100, 103)


@functools.cache
def arrays() -> dict[str, Any]:
    random = np.random.RandomState(3)
    shapes = {"conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "head.weight": (4, 4, 1, 1), "head.bias": (4,),
              "images": (2, 3, 6, 6), "factor": (2, 4, 6, 6)}  # fmt: skip
    return {name: random.randn(*shape).astype(np.float32) for name, shape in shapes.items()}


@functools.cache
def dumps(backend: str) -> dict[str, Dump]:
    """One run as it is ('-'), three perturbed ones; of torch 16 more, to calibrate with."""
    require(backend)
    folder = Path(tempfile.mkdtemp())
    np.savez(folder / "in.npz", **arrays())
    seeds = ["-", *map(str, OURS), *(map(str, SELF) if backend == "torch" else [])]
    path = os.pathsep.join(map(str, (ROOT, ROOT / "backends", ROOT / "weights_convert")))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("hooks_child.py")), str(folder / "in.npz"), str(folder), backend,
         *seeds],
        env={**os.environ, "PYTHONPATH": path, "ONEDNN_MAX_CPU_ISA": "AVX2", "GLOG_v": "3"},
        capture_output=True, text=True, timeout=GUARD, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {seed: Dump(folder / f"{backend}{seed}.safetensors") for seed in seeds}


NAMES = [
    "forward/conv", "forward/act", "forward/head", "forward/act@2", "forward/split[0]", "forward/split[1]",
]  # fmt: skip


@pytest.mark.parametrize("backend", ["torch", "paddle", "mindspore"])
def test_names_order_and_gradients_by_hand(backend: str) -> None:
    found = dumps(backend)["-"]
    names = list(found)
    assert [name for name in names if name.startswith("forward/")] == NAMES
    assert [name for name in names if name.startswith("weights/")] == [
        f"weights/{name}" for name in ("conv.weight", "conv.bias", "head.weight", "head.bias")
    ]
    gradients = [name for name in names if name.startswith("grad/")]
    assert gradients[-4:] == [f"grad/{name}" for name in ("head.bias", "head.weight", "conv.bias", "conv.weight")]
    assert gradients.index("grad/act@2") < gradients.index("grad/head") < gradients.index("grad/conv")
    factor = arrays()["factor"]
    assert found["grad/split[0]"].tobytes() == factor.tobytes(), "the loss is the sum of big * factor"
    assert (found["grad/split[1]"] == 1).all()
    both = 2 * factor + np.pad(np.ones((2, 1, 6, 6), np.float32), ((0, 0), (0, 3), (0, 0), (0, 0)))
    np.testing.assert_allclose(found["grad/act@2"], both, rtol=1e-6)
    np.testing.assert_allclose(found["grad/head.bias"], found["grad/head"].sum((0, 2, 3)), rtol=1e-5)
    for name, want in arrays().items():
        if f"weights/{name}" in found:
            assert found[f"weights/{name}"].tobytes() == want.tobytes()


def across(backend: str, change: str = "") -> Result:
    torch, other = dumps("torch"), dumps(backend)
    envelope = Envelope()
    for seed in SELF:
        envelope.add(torch["-"], torch[str(seed)])
    names = list(torch["-"])
    runs = [{name: other[str(seed)][name].copy() for name in names} for seed in OURS]
    for run in runs:
        if change:
            run[change] = run[change] * np.float32(1 + 1e-4)
    return compare(torch["-"], runs, envelope)


@pytest.mark.parametrize("backend", ["torch", "paddle", "mindspore"])
def test_hand_ports_in_three_frameworks_are_the_same_net(backend: str) -> None:
    result = across(backend)
    assert result.passed, result.words()
    assert max(finding.ratio for finding in result.findings) < 4


@pytest.mark.parametrize("name", ["forward/head", "grad/act", "grad/conv.weight"])
def test_a_tensor_that_is_off_by_a_ten_thousandth_is_named(name: str) -> None:
    first = across("torch", name).first
    assert first is not None
    assert first.name == name


def test_what_is_no_tensor_is_left_out() -> None:
    seen: list[str] = []
    collector = Collector(lambda name, array: seen.append(name), np.ndarray, np.copy)
    one = np.ones(2)
    collector.hook("a")(None, None, {"x": one, "y": (one, None), "n": 3})
    collector.hook("a")(None, None, one)
    assert seen == ["forward/a[x]", "forward/a[y][0]", "forward/a@2"]
