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
        source, {}, inputs, floats, cotangents, mode == "compiled"
    )
    named = {f"out/{name}": array for name, array in outs.items()}
    np.savez(sys.argv[2], **named, **{f"grad/{name}": array for name, array in grads.items()})


def torch(
    source: Path, weights: Arrays, inputs: Arrays, floats: list[str], cotangents: Arrays, compiled: bool
) -> tuple[Arrays, Arrays]:
    """Outputs of the generated Net's loss, and gradients of its weights and of `floats` among its inputs."""
    import torch

    net = import_source(source).Net().train()
    net.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    run = net.loss
    run = torch.compile(run, dynamic=False) if compiled else run
    tensors = {name: torch.from_numpy(np.array(array)).requires_grad_(name in floats) for name, array in inputs.items()}
    outs = run(*tensors.values())
    total = sum((outs[name] * torch.from_numpy(c)).sum() for name, c in cotangents.items())
    total.backward()
    grads = {n: tensors[n].grad.numpy() if tensors[n].grad is not None else np.zeros(inputs[n].shape) for n in floats}
    grads |= {name: weight.grad.numpy() for name, weight in net.named_parameters()}
    return {name: out.detach().numpy() for name, out in outs.items()}, grads


def paddle(
    source: Path, weights: Arrays, inputs: Arrays, floats: list[str], cotangents: Arrays, compiled: bool
) -> tuple[Arrays, Arrays]:
    import paddle

    net = import_source(source).Net()
    net.set_state_dict({name: paddle.to_tensor(array) for name, array in weights.items()})
    run = paddle.jit.to_static(net.loss, full_graph=True) if compiled else net.loss
    tensors = {name: paddle.to_tensor(array, stop_gradient=name not in floats) for name, array in inputs.items()}
    outs = run(*tensors.values())
    total = sum((outs[name] * paddle.to_tensor(c)).sum() for name, c in cotangents.items())
    total.backward()
    grads = {n: tensors[n].grad.numpy() if tensors[n].grad is not None else np.zeros(inputs[n].shape) for n in floats}
    grads |= {name: weight.grad.numpy() for name, weight in net.named_parameters()}
    return {name: out.numpy() for name, out in outs.items()}, grads


def mindspore(
    source: Path, weights: Arrays, inputs: Arrays, floats: list[str], cotangents: Arrays, compiled: bool
) -> tuple[Arrays, Arrays]:
    from portdet_mindspore.process import prepare

    prepare()
    import mindspore as ms

    net = import_source(source).Net().set_train()
    ms.load_param_into_net(net, {name: ms.Parameter(array, name=name) for name, array in weights.items()})
    trained = net.trainable_params() or None
    factors = {name: ms.Tensor(array) for name, array in cotangents.items()}

    def forward(*tensors: Any) -> Any:
        outs = net.loss(*tensors)
        total = 0.0
        for name, factor in factors.items():
            total = total + (outs[name] * factor).sum()
        return total, tuple(outs.keys()), tuple(outs.values())

    places = tuple(i for i, name in enumerate(inputs) if name in floats)
    run = ms.value_and_grad(forward, places, trained, has_aux=True)
    run = ms.jit(run) if compiled else run
    (_, names, outs), grads = run(*(ms.Tensor(array) for array in inputs.values()))
    found = {name: out.asnumpy() for name, out in zip(names, outs, strict=True)}
    grads, of_weights = grads if trained else (grads, ())
    names = [name for name in inputs if name in floats] + [weight.name for weight in trained or ()]
    return found, {name: slope.asnumpy() for name, slope in zip(names, (*grads, *of_weights), strict=True)}


if __name__ == "__main__":
    main()
