"""Paddle without portdet: the generated layer in the loop of a tutorial."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import paddle

from portdet.bench import CONVOLUTION
from portdet.session import Array, Batch, Options, Source
from portdet.source import load
from portdet_paddle.device import find_device


def bare_step(
    source: Source, class_name: str, weights: Mapping[str, Array], batch: Batch, options: Options
) -> Callable[[], float]:
    """See `portdet.bench.BareBackend`."""
    paddle.set_device(find_device(options.device))
    model = getattr(load(source), class_name)()
    model.set_state_dict(dict(weights))
    model.train()
    optimizer = paddle.optimizer.Momentum(1e-6, 0.9, parameters=model.parameters(), weight_decay=5e-4)
    inputs = [paddle.to_tensor(array) for array in batch.inputs(model.forward)]
    run = paddle.jit.to_static(model.forward, full_graph=True) if options.mode == "compiled" else model

    def step() -> float:
        loss = run(*inputs)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        _wait()
        return float(loss)

    return step


def peak_device_bytes() -> int:
    """See `portdet.bench.BareBackend`."""
    return int(paddle.device.cuda.max_memory_allocated()) if paddle.is_compiled_with_cuda() else 0


@paddle.no_grad()
def convolution_seconds(options: Options) -> float:
    """See `portdet.bench.BareBackend`."""
    paddle.set_device(find_device(options.device))
    batch, cin, cout, side = CONVOLUTION
    layer = paddle.nn.Conv2D(cin, cout, 3, padding=1, bias_attr=False)
    x = paddle.to_tensor(np.ones((batch, cin, side, side), np.float32))
    spent = []
    for _ in range(6):
        start = time.perf_counter()
        layer(x)
        _wait()
        spent.append(time.perf_counter() - start)
    return min(spent[1:])


def _wait() -> None:
    if paddle.get_device() != "cpu":
        paddle.device.synchronize()
