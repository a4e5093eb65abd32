"""The moving average on CPU (numpy arrays) and on a device (tensors) against float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from portdet.session import Arrays
from tests.backends.paddle_process import run_for_arrays

SCRIPT = """
from portdet_paddle.start import start
start(2)
import paddle
from portdet.shadow import HostShadow
from portdet_paddle.ema import DeviceShadow

paddle.set_device("cpu")
live = {name: paddle.to_tensor(given[name]) for name in ("large", "small")}
view = lambda name: np.from_dlpack(live[name].detach())
start = {name: given[f"start.{name}"] for name in live}
host, one = HostShadow(start, view, 2), HostShadow(start, view, 1)
for kind, shadow in (("host", host), ("one", one), ("device", DeviceShadow(live, start))):
    first = shadow.arrays()
    for step, decay in enumerate((0.9, 0.0, 0.99)):
        for name, tensor in live.items():
            tensor.set_value(given[name] * np.float32(step + 1))
        shadow.update(decay)
    found |= {f"{kind}.{name}": value for name, value in shadow.arrays().items()}
    assert all(first[name].tobytes() == given[f"start.{name}"].tobytes() for name in live)  # copies
    for name, tensor in live.items():
        assert tensor.numpy().tobytes() == (given[name] * np.float32(3)).tobytes()
"""


@pytest.fixture(scope="module")
def given() -> Arrays:
    rng = np.random.default_rng(11)
    shapes = {"large": (3, 200_003), "small": (5,)}
    return {
        prefix + name: np.asarray(rng.normal(0, 1, shape), np.float32)
        for prefix in ("", "start.")
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def found(given: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Arrays:
    folder: Path = tmp_path_factory.mktemp("ema")
    return run_for_arrays(SCRIPT, folder, given)


@pytest.mark.parametrize("kind", ["host", "one", "device"])
@pytest.mark.parametrize("name", ["large", "small"])
def test_equals_float64(given: Arrays, found: Arrays, kind: str, name: str) -> None:
    wanted = given[f"start.{name}"].astype(np.float64)
    for step, decay in enumerate((0.9, 0.0, 0.99)):
        wanted = decay * wanted + (1 - decay) * given[name].astype(np.float64) * (step + 1)
    assert found[f"{kind}.{name}"].shape == wanted.shape
    np.testing.assert_allclose(found[f"{kind}.{name}"], wanted, rtol=1e-6, atol=1e-6)


def test_threads_change_no_bit(found: Arrays) -> None:
    for name in ("large", "small"):
        assert found[f"host.{name}"].tobytes() == found[f"one.{name}"].tobytes()
