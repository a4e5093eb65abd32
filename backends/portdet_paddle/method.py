"""One method of a generated class, with gradients: what conformance checks ops and layers by."""

from __future__ import annotations

import paddle

from portdet.session import Arrays, MethodCall, Options
from portdet.source import load
from portdet_paddle.device import find_device


def differentiate(call: MethodCall, options: Options) -> tuple[Arrays, Arrays]:
    """See `portdet.session.Backend`."""
    paddle.set_device(find_device(options.device))
    net = getattr(load(call.source), call.class_name)()
    net.set_state_dict({name: paddle.to_tensor(array) for name, array in call.weights.items()})
    run = getattr(net, call.method)
    run = paddle.jit.to_static(run, full_graph=True) if options.mode == "compiled" else run
    tensors = {n: paddle.to_tensor(array, stop_gradient=n not in call.wanted) for n, array in call.inputs.items()}
    outs = run(*tensors.values())
    total = sum((outs[name] * paddle.to_tensor(array)).sum() for name, array in call.cotangents.items())
    total.backward()
    asked = {name: tensors[name] for name in call.wanted} | dict(net.named_parameters())
    grads = {name: paddle.zeros_like(t) if t.grad is None else t.grad for name, t in asked.items()}
    return {n: t.numpy() for n, t in outs.items()}, {n: t.numpy() for n, t in grads.items()}
