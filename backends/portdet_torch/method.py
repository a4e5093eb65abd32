"""One method of a generated class, with gradients: what conformance checks ops and layers by."""

from __future__ import annotations

import numpy as np
import torch

from portdet.processes.cores import cores
from portdet.session import Arrays, MethodCall, Options
from portdet.source import load
from portdet_torch.device import find_device


def differentiate(call: MethodCall, options: Options) -> tuple[Arrays, Arrays]:
    """See `portdet.session.Backend`."""
    device = find_device(options.device)
    torch.set_num_threads(options.threads or cores())
    net = getattr(load(call.source), call.class_name)().to(device).train()
    net.load_state_dict({name: torch.from_numpy(array) for name, array in call.weights.items()})
    run = getattr(net, call.method)
    run = torch.compile(run, dynamic=False) if options.mode == "compiled" else run
    tensors = {name: torch.from_numpy(np.array(array)).to(device) for name, array in call.inputs.items()}
    asked = {name: tensors[name].requires_grad_() for name in call.wanted} | dict(net.named_parameters())
    outs = run(*tensors.values())
    total = sum((outs[name] * torch.from_numpy(array).to(device)).sum() for name, array in call.cotangents.items())
    total.backward()
    grads = {name: torch.zeros_like(t) if t.grad is None else t.grad for name, t in asked.items()}
    return {n: t.detach().cpu().numpy() for n, t in outs.items()}, {n: t.cpu().numpy() for n, t in grads.items()}
