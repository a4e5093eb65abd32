"""A small net as three people would write it by hand: `python hooks_child.py IN.npz OUT_FOLDER BACKEND [SEED...]`.

Writes a dump per seed: the named activations, gradients and weights that the backend's hooks collect.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from portdet.align.compare import DumpWriter, perturb

Arrays = dict[str, Any]


def torch_net(arrays: Arrays, put: Any) -> None:
    import torch
    from torch import nn

    from portdet_torch import hooks

    class Net(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.act = nn.LeakyReLU(0.1)
            self.head = nn.Conv2d(4, 4, 1)
            self.split = split(nn)

        def forward(self, x: Any) -> Any:
            x = self.act(self.head(self.act(self.conv(x))))
            return self.split(x)

    net = Net()
    net.load_state_dict({n: torch.from_numpy(a) for n, a in arrays.items() if n.startswith(("conv", "head"))})
    with hooks.collected(net, put):
        big, small = net(torch.from_numpy(arrays["images"]))
        ((big * torch.from_numpy(arrays["factor"])).sum() + small.sum()).backward()
    hooks.weight_gradients(net, put)
    hooks.weights(net, put)


def paddle_net(arrays: Arrays, put: Any) -> None:
    import paddle
    from paddle import nn

    from portdet_paddle import hooks

    class Net(nn.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2D(3, 4, 3, padding=1)
            self.act = nn.LeakyReLU(0.1)
            self.head = nn.Conv2D(4, 4, 1)
            self.split = split(nn)

        def forward(self, x: Any) -> Any:
            x = self.act(self.head(self.act(self.conv(x))))
            return self.split(x)

    net = Net()
    net.set_state_dict({n: paddle.to_tensor(a) for n, a in arrays.items() if n.startswith(("conv", "head"))})
    with hooks.collected(net, put):
        big, small = net(paddle.to_tensor(arrays["images"]))
        ((big * paddle.to_tensor(arrays["factor"])).sum() + small.sum()).backward()
    hooks.weight_gradients(net, put)
    hooks.weights(net, put)


def mindspore_net(arrays: Arrays, put: Any) -> None:
    import mindspore as ms
    from mindspore import nn

    from portdet_mindspore import hooks

    class Net(nn.Cell):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, pad_mode="pad", padding=1, has_bias=True)
            self.act = nn.LeakyReLU(0.1)
            self.head = nn.Conv2d(4, 4, 1, has_bias=True)
            self.split = split(nn)

        def construct(self, x: Any) -> Any:
            x = self.act(self.head(self.act(self.conv(x))))
            return self.split(x)

    ms.set_context(mode=ms.PYNATIVE_MODE)
    net = Net()
    for name, parameter in net.parameters_and_names():
        parameter.set_data(ms.Tensor(arrays[name]))
    factor = ms.Tensor(arrays["factor"])

    def loss(images: Any) -> Any:
        big, small = net(images)
        return (big * factor).sum() + small.sum()

    with hooks.collected(net, put):
        step = ms.value_and_grad(loss, None, net.trainable_params())
        _, gradients = step(ms.Tensor(arrays["images"]))
    hooks.weight_gradients(net, gradients, put)
    hooks.weights(net, put)


def split(nn: Any) -> Any:
    """A module of any of the three that returns two tensors."""
    base: Any = getattr(nn, "Module", None) or getattr(nn, "Layer", None) or nn.Cell

    class Half(base):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            return x * 2.0, x[:, :1]

        construct = forward

    return Half()


NETS = {"torch": torch_net, "paddle": paddle_net, "mindspore": mindspore_net}


def main() -> None:
    source, folder, backend, *seeds = sys.argv[1:]
    with np.load(source) as found:
        arrays = dict(found)
    for seed in seeds:
        moved = arrays if seed == "-" else {**perturb(arrays, int(seed)), "factor": arrays["factor"]}
        with DumpWriter(Path(folder, f"{backend}{seed}.safetensors"), {"program": backend, "seed": seed}) as dump:
            NETS[backend](moved, dump.put)


if __name__ == "__main__":
    main()
