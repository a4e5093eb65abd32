"""One method of a generated class, with gradients: what conformance checks ops and layers by."""

from __future__ import annotations

from typing import Any

import mindspore as ms

from portdet.session import Arrays, MethodCall, Options
from portdet.source import load
from portdet_mindspore.device import use_device
from portdet_mindspore.graph import compiled


def differentiate(call: MethodCall, options: Options) -> tuple[Arrays, Arrays]:
    """See `portdet.session.Backend`."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    use_device(options.device)
    net = getattr(load(call.source), call.class_name)().set_train()
    ms.load_param_into_net(net, {name: ms.Parameter(array, name=name) for name, array in call.weights.items()})
    method, trained = getattr(net, call.method), net.trainable_params() or None
    factors = {name: ms.Tensor(array) for name, array in call.cotangents.items()}

    def forward(*tensors: Any) -> Any:
        outs = method(*tensors)
        total = 0.0
        for name, factor in factors.items():
            total = total + (outs[name] * factor).sum()
        return total, tuple(outs.keys()), tuple(outs.values())

    places = tuple(i for i, name in enumerate(call.inputs) if name in call.wanted)
    run = ms.value_and_grad(forward, places, trained, has_aux=True)
    run = compiled(run) if options.mode == "compiled" else run
    (_, names, outs), grads = run(*(ms.Tensor(array) for array in call.inputs.values()))
    grads, of_weights = grads if trained else (grads, ())
    grads = (grads,) if isinstance(grads, ms.Tensor) else grads  # of one input, it comes without a tuple
    asked = [name for name in call.inputs if name in call.wanted] + [weight.name for weight in trained or ()]
    slopes = zip(asked, (*grads, *of_weights), strict=True)
    return {n: t.asnumpy() for n, t in zip(names, outs, strict=True)}, {n: t.asnumpy() for n, t in slopes}
