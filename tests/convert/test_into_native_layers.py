"""Files that portdet writes load, strictly, into each framework's own layers, which then compute the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from portdet_convert.files import WRITERS
from portdet_convert.files.source import Array, Arrays
from portdet_convert.naming import WRITTEN
from portdet_convert.rules import restore

Run = Callable[[str, Path], str]

TORCH = """
import numpy as np, torch
from torch import nn
class Unit(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv6 = Unit(), nn.Conv2d(5, 7, 1)
    def forward(self, x):
        return self.conv6(self.conv1.norm(self.conv1.conv(x)))
net = Net().eval()
net.load_state_dict(torch.load('w.pth', weights_only=True), strict=True)
np.save('y.npy', net(torch.from_numpy(np.load('x.npy'))).detach().numpy())
"""
MINDSPORE = """
import mindspore as ms, numpy as np
from mindspore import nn
class Unit(nn.Cell):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 5, 3, pad_mode='pad', padding=1, has_bias=False), nn.BatchNorm2d(5)
class Net(nn.Cell):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv6 = Unit(), nn.Conv2d(5, 7, 1, has_bias=True)
    def construct(self, x):
        return self.conv6(self.conv1.norm(self.conv1.conv(x)))
net = Net().set_train(False)
left = ms.load_param_into_net(net, ms.load_checkpoint('w.ckpt'), strict_load=True)
assert left == ([], []), left
np.save('y.npy', net(ms.Tensor(np.load('x.npy'))).asnumpy())
"""
PADDLE = """
import paddle, numpy as np
from paddle import nn
class Unit(nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2D(3, 5, 3, padding=1, bias_attr=False), nn.BatchNorm2D(5)
class Net(nn.Layer):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv6 = Unit(), nn.Conv2D(5, 7, 1)
    def forward(self, x):
        return self.conv6(self.conv1.norm(self.conv1.conv(x)))
net = Net()
net.eval()
left = net.set_state_dict(paddle.load('w.pdparams'))
assert left == ([], []), left
np.save('y.npy', net(paddle.to_tensor(np.load('x.npy'))).numpy())
"""


def reference(x: Array, w: Arrays) -> Array:
    """The same layers in float64."""
    pad = np.pad(x.astype("f8"), ((0, 0), (0, 0), (1, 1), (1, 1)))
    y: Array = np.zeros((len(x), 5, *x.shape[2:]))
    for i, j in np.ndindex(3, 3):
        part = pad[:, :, i : i + x.shape[2], j : j + x.shape[3]]
        y += np.einsum("bchw,oc->bohw", part, w["conv1.conv.weight"][:, :, i, j])
    leaves = ("weight", "bias", "running_mean", "running_var")
    gamma, beta, mean, var = (w[f"conv1.norm.{leaf}"][:, None, None] for leaf in leaves)
    y = (y - mean) / np.sqrt(var.astype("f8") + 1e-5) * gamma + beta
    z: Array = np.einsum("bchw,oc->bohw", y, w["conv6.weight"][:, :, 0, 0])
    z += w["conv6.bias"][:, None, None]
    return z


@pytest.mark.parametrize(
    ("framework", "script", "form"),
    [("torch", TORCH, "pth"), ("mindspore", MINDSPORE, "ckpt"), ("paddle", PADDLE, "pdparams")],
)
def test_load_and_run(tmp_path: Path, run_alone: Run, framework: str, script: str, form: str) -> None:
    rng = np.random.default_rng(3)
    weights: Arrays = {
        "conv1.conv.weight": rng.standard_normal((5, 3, 3, 3), dtype=np.float32),
        "conv6.weight": rng.standard_normal((7, 5, 1, 1), dtype=np.float32),
        "conv6.bias": rng.standard_normal(7, dtype=np.float32),
        **{
            f"conv1.norm.{k}": rng.random(5, dtype=np.float32) + k.count("v")
            for k in ("weight", "bias", "running_mean", "running_var")
        },
    }
    x = rng.standard_normal((2, 3, 6, 6), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    named, _ = restore(WRITTEN[form], weights)
    WRITERS[form](tmp_path / f"w.{form}", named)
    run_alone(script, tmp_path)
    wanted = reference(x, weights)
    assert np.abs(np.load(tmp_path / "y.npy") - wanted).max() < 1e-5 * np.abs(wanted).max()
