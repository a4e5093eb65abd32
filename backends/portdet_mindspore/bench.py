"""MindSpore without portdet: the generated cell in the loop of a tutorial."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import mindspore
import numpy as np
from mindspore import Parameter, Tensor, nn

from portdet.bench import CONVOLUTION
from portdet.session import Array, Batch, Options, Source
from portdet.source import load
from portdet_mindspore.graph import compiled


def bare_step(
    source: Source, class_name: str, weights: Mapping[str, Array], batch: Batch, options: Options
) -> Callable[[], float]:
    """See `portdet.bench.BareBackend`. Device and mode are those of the open session."""
    net = getattr(load(source), class_name)()
    mindspore.load_param_into_net(net, {name: Parameter(Tensor(np.array(a))) for name, a in weights.items()})
    net.set_train()
    optimizer = nn.Momentum(net.trainable_params(), 1e-6, 0.9, weight_decay=5e-4)
    inputs = [Tensor(np.array(array)) for array in batch.inputs(net.construct)]

    def forward(*inputs: Any) -> Any:
        return net(*inputs)["loss"]

    gradient = mindspore.value_and_grad(forward, None, optimizer.parameters)

    def train(*inputs: Any) -> Any:
        loss, gradients = gradient(*inputs)
        optimizer(gradients)
        return loss

    run = compiled(train) if options.mode == "compiled" else train
    on_cpu = mindspore.get_context("device_target") == "CPU"

    def step() -> float:
        loss = run(*inputs)
        if not on_cpu:  # where the call only prints an error
            mindspore.runtime.synchronize()
        return float(loss.asnumpy())

    return step


def peak_device_bytes() -> int:
    """See `portdet.bench.BareBackend`."""
    if mindspore.get_context("device_target") == "CPU":
        return 0
    return int(mindspore.runtime.max_memory_allocated())


def convolution_seconds(options: Options) -> float:
    """See `portdet.bench.BareBackend`; in the graph mode or PyNative of the session."""
    batch, cin, cout, side = CONVOLUTION
    layer = nn.Conv2d(cin, cout, 3, pad_mode="pad", padding=1, has_bias=False)
    run = compiled(layer) if options.mode == "compiled" else layer
    x = Tensor(np.ones((batch, cin, side, side), np.float32))
    spent = []
    for _ in range(6):
        start = time.perf_counter()
        run(x).asnumpy()
        spent.append(time.perf_counter() - start)
    return min(spent[1:])
