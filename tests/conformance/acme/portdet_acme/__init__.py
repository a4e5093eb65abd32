"""A backend of somebody else's: an accelerator that PyTorch reaches through a plugin. Its CPU stands for it here.

It has no kernel for deformable convolution and none for max pooling: the first is left to portdet's composed form, the
second is written out of what there is. Nothing but its table and its device differ from PyTorch's backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from portdet.errors import PortdetError
from portdet.session import Arrays, Check, MethodCall, Options, Recipe, Session, Source
from portdet_torch import TorchBackend
from portdet_torch.target import TARGET

DEVICES = {"acme": "cpu", "acme:0": "cpu", "cpu": "cpu"}  # with the plugin: "acme": "acme:0"
MAX_POOL = (
    "F.pad({0}, ({padding}, {padding}, {padding}, {padding}), value=float('-inf'))"
    ".unfold(2, {kernel}, {stride}).unfold(3, {kernel}, {stride}).amax(dim=(-1, -2))"
)


class AcmeBackend(TorchBackend):
    """PyTorch's session, generated source in ACME's words."""

    name = "acme"
    target = replace(TARGET, name="acme", natives={}, ops={**TARGET.ops, "max_pool2d": MAX_POOL})
    other_precisions = MappingProxyType({})  # of float64 nothing is known
    modes = ("eager",)
    known_failures = MappingProxyType(
        {"ops/max_pool2d_2_a gradient": "equal values share the gradient; in a kernel the first of them has it"}
    )

    def open_session(
        self, source: Source, class_name: str, recipe: Recipe, names: Mapping[str, str], options: Options
    ) -> Session:
        return super().open_session(source, class_name, recipe, names, on_device(options))

    def differentiate(self, call: MethodCall, options: Options) -> tuple[Arrays, Arrays]:
        return super().differentiate(call, on_device(options))

    def doctor(self) -> list[Check]:
        return [Check("ok", "one ACME accelerator")]


def on_device(options: Options) -> Options:
    """The options with PyTorch's name of the device. Raises PortdetError for a device that is not there."""
    if options.device not in DEVICES:
        raise PortdetError(f"no device '{options.device}' for acme", fix=f"one of {', '.join(DEVICES)}")
    return replace(options, device=DEVICES[options.device])


BACKEND = AcmeBackend()
