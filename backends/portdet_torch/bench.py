"""PyTorch without portdet: the generated module in the loop of a tutorial."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch

from portdet.bench import CONVOLUTION
from portdet.session import Array, Batch, Options, Source
from portdet.source import load
from portdet_torch.device import find_device


def bare_step(
    source: Source, class_name: str, weights: Mapping[str, Array], batch: Batch, options: Options
) -> Callable[[], float]:
    """See `portdet.bench.BareBackend`."""
    device = find_device(options.device)
    model = getattr(load(source), class_name)().to(device)
    model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()}, strict=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4)
    inputs = [torch.from_numpy(array).to(device) for array in batch.inputs(model.forward)]
    run = torch.compile(model, dynamic=False) if options.mode == "compiled" else model
    model.train()

    def step() -> float:
        with _as_shipped():
            optimizer.zero_grad()
            loss = run(*inputs)["loss"]
            loss.backward()
            optimizer.step()
            _wait(device)
            return float(loss.detach())

    return step


@contextmanager
def _as_shipped() -> Iterator[None]:
    """Without the deterministic kernels that a session asks for in the whole process: they are part of our cost."""
    chosen = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(chosen[0], warn_only=chosen[1])


def peak_device_bytes() -> int:
    """See `portdet.bench.BareBackend`."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def convolution_seconds(options: Options) -> float:
    """See `portdet.bench.BareBackend`."""
    device = find_device(options.device)
    batch, cin, cout, side = CONVOLUTION
    layer = torch.nn.Conv2d(cin, cout, 3, padding=1, bias=False, device=device)
    x = torch.ones(batch, cin, side, side, device=device)
    spent = []
    with torch.no_grad():
        for _ in range(6):
            start = time.perf_counter()
            layer(x)
            _wait(device)
            spent.append(time.perf_counter() - start)
    return min(spent[1:])


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize(device)
