"""Faults of real ports, planted in the PyTorch form of the tiny YOLOv3, each with the place that has to be named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Fault:
    """edit: of the generated source. recipe, values: what is changed there. touch: of the opened session.

    first: the start of the name that must be found guilty first.
    """

    name: str
    first: str
    edit: tuple[tuple[str, str], ...] = ()
    recipe: dict[str, Any] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    touch: Callable[[Any], None] = lambda session: None


NORM = "backblock1.conv3.norm"


def _norm(**changes: Any) -> Callable[[Any], None]:
    def touch(session: Any) -> None:
        for name, value in changes.items():
            setattr(session.model.get_submodule(NORM), name, value)

    return touch


def _all_norms(**changes: Any) -> Callable[[Any], None]:
    def touch(session: Any) -> None:
        for module in session.model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                for name, value in changes.items():
                    setattr(module, name, value)

    return touch


def _swap_momentum(session: Any) -> None:
    for module in session.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1 - module.momentum


def _biased_variance(session: Any) -> None:
    """What Paddle stores: the variance divided by n instead of n - 1."""
    for module in session.model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):

            def keep(norm: Any, inputs: Any) -> None:
                norm.before = norm.running_var.clone()

            def store(norm: Any, inputs: Any, output: Any) -> None:
                if norm.training:
                    n = inputs[0].numel() / inputs[0].shape[1]
                    old = norm.before * (1 - norm.momentum)
                    norm.running_var.data.copy_(old + (norm.running_var - old) * (n - 1) / n)

            module.register_forward_pre_hook(keep)
            module.register_forward_hook(store)


def _transpose(session: Any) -> None:
    """A fault of conversion: one kernel arrives with height and width exchanged."""
    load, name = session.load_state, "weights/backblock0.conv3.conv.weight"
    session.load_state = lambda state: load({**state, name: np.ascontiguousarray(state[name].transpose(0, 1, 3, 2))})


def _rounded(bits: int) -> Callable[[Any], None]:
    """TF32 and the like: convolutions that drop the last bits of what they are given."""

    def touch(session: Any) -> None:
        def cut(module: Any, inputs: Any) -> Any:
            (x,) = inputs
            lost = 23 - bits
            return ((x.view(torch.int32) + (1 << (lost - 1))) >> lost << lost).view(torch.float32)

        module = session.model.get_submodule("backbone.conv0.conv")
        module.register_forward_pre_hook(cut)

    return touch


def _decoupled_decay(session: Any) -> None:
    """AdamW's way: the weight itself shrinks, the gradient knows nothing of it."""
    step = session.optimizer.step
    decays = [group["weight_decay"] for group in session.optimizer.param_groups]

    def decoupled() -> None:
        for group, decay in zip(session.optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = 0.0
            with torch.no_grad():
                for weight in group["params"]:
                    weight.mul_(1 - group["lr"] * decay)
        step()

    session.optimizer.step = decoupled


def _rate_in_velocity(session: Any) -> None:
    """v = m v + lr g; w -= v, as Caffe and Keras have it."""

    def step() -> None:
        with torch.no_grad():
            for group in session.optimizer.param_groups:
                for weight in group["params"]:
                    buffer = session.optimizer.state[weight]["momentum_buffer"]
                    gradient = weight.grad + group["weight_decay"] * weight
                    buffer.mul_(group["momentum"]).add_(gradient, alpha=group["lr"])
                    weight.sub_(buffer)

    session.optimizer.step = step


def _average_copies_buffers(session: Any) -> None:
    """Statistics of the norms go into the average as they are."""
    state = session.state

    def copied() -> Any:
        found = state()
        for name in found:
            if name.startswith("ema/") and "running" in name:
                found[name] = found[name.replace("ema/", "weights/", 1)]
        return found

    session.state = copied


def _same_image(session: Any) -> None:
    """The loss sees the first image twice."""

    def twice(module: Any, inputs: Any) -> Any:
        images, *rest = inputs
        return (images[:1].expand_as(images), *rest) if rest else inputs

    session.model.register_forward_pre_hook(twice)


FAULTS = [
    Fault("epsilon of one norm 1e-4", f"forward/{NORM}", touch=_norm(eps=1e-4)),
    Fault("epsilon of all norms 1e-3", "forward/backbone.conv0.norm", touch=_all_norms(eps=1e-3)),
    Fault("momentum of one norm swapped", f"step/weights/{NORM}.running_mean", touch=_norm(momentum=0.9)),
    Fault("momentum of one norm 0.03", f"step/weights/{NORM}.running_mean", touch=_norm(momentum=0.03)),
    Fault("momentum of all norms swapped", "step/weights/backbone.conv0.norm.running_mean", touch=_swap_momentum),
    Fault("biased running variance", "step/weights/backbone.conv0.norm.running_var", touch=_biased_variance),
    Fault("slope of leaky ReLU 0.01", "forward/backblock0.conv0", (("0.1, inplace=True)", "0.01, inplace=True)"),)),
    Fault("padding on the other side", "forward/backbone.conv1.conv", (("(0, 1, 0, 1)", "(1, 0, 1, 0)"),)),
    Fault("one kernel transposed", "weights/backblock0.conv3.conv.weight", touch=_transpose),
    Fault("BGR for RGB", "forward/backbone.conv0.conv", (("self.conv0(images)", "self.conv0(images.flip(1))"),)),
    Fault("10 bits of mantissa", "forward/backbone.conv0.conv", touch=_rounded(10)),
    Fault(
        "bilinear for nearest",
        "forward/backblock1.conv0.conv",
        (("scale_factor=2)", "scale_factor=2, mode='bilinear')"),),
    ),
    Fault("anchors of one level", "forward/predict", (("(116, 90)", "(90, 116)"),)),
    Fault("mean for sum in the loss", "loss/xy", (("(xy * weight).sum()", "(xy * weight).mean()"),)),
    Fault("no half in the size's loss", "loss/wh", (("error * error * 0.5", "error * error * 1.0"),)),
    Fault("loss over batch + 1", "loss/xy", (("return stack / head.shape[0]", "return stack / (head.shape[0] + 1)"),)),
    Fault("ignored above 0.3", "loss/obj", (("amax(dim=2) < 0.7)", "amax(dim=2) < 0.3)"),)),
    Fault("labels smoothed", "loss/cls", (("own.float()), max=1.0)", "own.float()), max=0.99)"),)),
    Fault("the same image twice", "loss/xy", touch=_same_image),
    Fault("a branch without gradient", "grad/conv1.", (("self.conv1(route)", "self.conv1(route).detach()"),)),
    Fault("decay on biases and norms", "step/", recipe={"everywhere": True}),
    Fault("decay half as large", "step/", recipe={"decay": 2.5e-3}),
    Fault("decay decoupled from the gradient", "step/momentum/", touch=_decoupled_decay),
    Fault("Nesterov", "step/weights/backbone.conv0.conv.weight", recipe={"nesterov": True}),
    Fault("momentum 0.95", "step/weights/backbone.conv0", recipe={"momentum": 0.95}),
    Fault("rate inside the velocity", "step/weights/backbone.conv0.conv.weight", touch=_rate_in_velocity),
    Fault("gradients clipped at 10", "step/weights/backbone.conv0.conv.weight", recipe={"clip_norm": 10.0}),
    Fault("learning rate 1 % off", "step/weights/backbone.conv0.conv.weight", values={"lr": 1.01e-3}),
    Fault("decay of the average 0.91", "step/ema/backbone.conv0.conv.weight", values={"ema_decay": 0.91}),
    Fault("average copies statistics", "step/ema/backbone.conv0.norm.running_mean", touch=_average_copies_buffers),
]
