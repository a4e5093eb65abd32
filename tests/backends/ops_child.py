"""Every op of one backend: `python ops_child.py IN OUT BACKEND MODE`.

Writes out/<case>, and grad/<input>: d sum(out * cotangent) / d input, of all float inputs of smooth ops.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from portdet.backends import import_source, load_backend
from portdet.lower import emit
from portdet.session import Arrays
from tests.backends.ops_spec import traced


def main() -> None:
    backend, mode = sys.argv[3:]
    given = dict(np.load(sys.argv[1]))
    graph, cases, inputs = traced(Path.cwd())
    source = Path("every_op_" + backend + ".py")
    source.write_text(emit(graph, load_backend(backend).target, title="Every op."))
    floats = [n for case in cases if case.op.smooth for n in case.names if inputs[n].dtype == np.float32]
    cotangents = {case.name: given[case.name] for case in cases if case.op.smooth}
    outs, grads = {"torch": torch, "mindspore": mindspore, "paddle": paddle}[backend](
        source, inputs, floats, cotangents, mode == "compiled"
    )
    named = {f"out/{name}": array for name, array in outs.items()}
    np.savez(sys.argv[2], **named, **{f"grad/{name}": array for name, array in grads.items()})


def torch(source: Path, inputs: Arrays, floats: list[str], cotangents: Arrays, compiled: bool) -> tuple[Arrays, Arrays]:
    import torch

    run = import_source(source).Net().train().loss
    run = torch.compile(run, dynamic=False) if compiled else run
    tensors = {name: torch.from_numpy(np.array(array)).requires_grad_(name in floats) for name, array in inputs.items()}
    outs = run(*tensors.values())
    total = sum((outs[name] * torch.from_numpy(c)).sum() for name, c in cotangents.items())
    total.backward()
    grads = {n: tensors[n].grad.numpy() if tensors[n].grad is not None else np.zeros(inputs[n].shape) for n in floats}
    return {name: out.detach().numpy() for name, out in outs.items()}, grads


def paddle(
    source: Path, inputs: Arrays, floats: list[str], cotangents: Arrays, compiled: bool
) -> tuple[Arrays, Arrays]:
    import paddle

    net = import_source(source).Net()
    run = paddle.jit.to_static(net.loss, full_graph=True) if compiled else net.loss
    tensors = {name: paddle.to_tensor(array, stop_gradient=name not in floats) for name, array in inputs.items()}
    outs = run(*tensors.values())
    total = sum((outs[name] * paddle.to_tensor(c)).sum() for name, c in cotangents.items())
    total.backward()
    grads = {n: tensors[n].grad.numpy() if tensors[n].grad is not None else np.zeros(inputs[n].shape) for n in floats}
    return {name: out.numpy() for name, out in outs.items()}, grads


def mindspore(
    source: Path, inputs: Arrays, floats: list[str], cotangents: Arrays, compiled: bool
) -> tuple[Arrays, Arrays]:
    from portdet_mindspore.process import prepare

    prepare()
    import mindspore as ms

    net = import_source(source).Net().set_train()
    weights = {name: ms.Tensor(array) for name, array in cotangents.items()}

    def forward(*tensors: Any) -> Any:
        outs = net.loss(*tensors)
        total = 0.0
        for name, weight in weights.items():
            total = total + (outs[name] * weight).sum()
        return total, tuple(outs.keys()), tuple(outs.values())

    run = ms.value_and_grad(forward, tuple(i for i, name in enumerate(inputs) if name in floats), has_aux=True)
    run = ms.jit(run) if compiled else run
    (_, names, outs), grads = run(*(ms.Tensor(array) for array in inputs.values()))
    found = {name: out.asnumpy() for name, out in zip(names, outs, strict=True)}
    return found, {n: g.asnumpy() for n, g in zip((n for n in inputs if n in floats), grads, strict=True)}


if __name__ == "__main__":
    main()
