"""One rank of several, or the only process: `python torch_norm_rank.py FOLDER MODE`. Batch norm, and a small net.

Writes FOLDER/N.npz, N its rank, or alone.npz.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from portdet.backends import load_backend
from portdet.errors import PortdetError
from portdet.ranks import Place
from portdet.session import Arrays, Batch, Group, Options, Recipe, Source, StepValues

# Smooth: no value of a ReLU falls on another side by another order of sums
SOURCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6, eps=1e-5, momentum=0.1)
        self.second = nn.Conv2d(6, 2, 3)

    def forward(self, images, boxes=None):
        y = self.second(torch.tanh(self.norm(self.first(images))))
        if boxes is None:
            return y
        part = ((y.mean(dim=(2, 3)) - boxes.mean(dim=1)[:, :2]) ** 2).mean()
        return {"loss": part * 3, "part": part}
"""
STEPS = 20


def batch_norm(rank: int, world: int) -> Arrays:
    """One layer in float64 on this rank's share of 4 images whose mean is 300 times their deviation."""
    from portdet_torch.ranks import synchronise_norms

    random = np.random.RandomState(0)
    whole = 300 + random.randn(4, 5, 3, 7) * np.arange(1, 6)[:, None, None]
    wanted = random.randn(*whole.shape)
    layer = nn.BatchNorm2d(5, eps=1e-3, momentum=0.3).double()
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(random.rand(5)))
        layer.bias.copy_(torch.from_numpy(random.rand(5)))
    layer = synchronise_norms(layer, torch.device("cpu")) if world > 1 else layer
    x = torch.from_numpy(whole[rank::world].copy()).requires_grad_()
    y = layer(x)
    y.backward(torch.from_numpy(wanted[rank::world].copy()))
    layer.eval()
    out = {"y": y, "dx": x.grad, "dweight": layer.weight.grad, "dbias": layer.bias.grad,
           "running_mean": layer.running_mean, "running_var": layer.running_var, "still": layer(x)}  # fmt: skip
    return {f"norm/{name}": tensor.detach().numpy() for name, tensor in out.items()}


def session_of(folder: Path, place: Place, mode: str) -> Any:
    from portdet_torch.session import TorchSession

    source = Source(SOURCE, folder / f"net{place.world}_{place.rank}.py")
    names = ["first.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "second.weight",
             "second.bias"]  # fmt: skip
    trained = tuple(name for name in names if "running" not in name)
    recipe = Recipe((Group(trained, 1e-4),), ema=True)
    options = Options(mode=mode, threads=1, place=place)
    return TorchSession(source, "Net", recipe, {name: name for name in names}, options)


def stepped(session: Any, place: Place) -> Arrays:
    random = np.random.RandomState(1)
    session.load_weights({n: random.rand(*v.shape).astype(np.float32) / 2 for n, v in session.weights().items()})
    images = random.randn(4, 3, 8, 8).astype(np.float32) + 5
    boxes = random.rand(4, 6, 4).astype(np.float32)
    mine, unused = slice(place.rank, None, place.world), np.zeros(0)
    batch = Batch(images[mine], boxes[mine], unused, unused, unused)
    out: Arrays = {f"gradient/{n}": g for n, g in session.losses_and_gradients(batch)[1].items()}
    for _ in range(STEPS):
        result = session.train_step(batch, StepValues(1e-3, 1.0, 0.9))
    out |= {f"loss/{name}": np.array(value) for name, value in result.losses.items()}
    out |= session.state()
    return out | {"rows": session.predict(images)}


def main() -> None:
    folder, mode = Path(sys.argv[1]), sys.argv[2]
    place = load_backend("torch").launcher.place()
    session = session_of(folder, place, mode)
    out = batch_norm(place.rank, place.world) | stepped(session, place)
    try:
        session.load_weights({n: v + (n == "norm.bias") * place.rank for n, v in session.weights().items()})
    except PortdetError as error:
        out["refused"] = np.array(str(error))
    session.close()
    np.savez(folder / f"{place.rank if place.world > 1 else 'alone'}.npz", **out)


if __name__ == "__main__":
    main()
