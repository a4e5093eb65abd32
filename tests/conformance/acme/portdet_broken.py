"""ACME's backend with one fault, that of the environment variable FAULT: what `portdet conformance` has to find."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from portdet_acme import AcmeBackend

from portdet.lower.text import Attrs
from portdet.session import Array, Arrays, MethodCall, Options, Recipe, Session, Source
from portdet.shadow import Shadow
from portdet_torch.target import TARGET

FAULT = os.environ.get("FAULT", "")


def _symmetric(attrs: Attrs, x: str) -> str:
    """No padding beside the layer's own, which is the same on both sides."""
    return x


def _swapped(attrs: Attrs) -> str:
    """Batch norm whose momentum weighs the old value, as other frameworks have it."""
    return f"nn.BatchNorm2d({attrs['channels']}, eps={attrs['eps']}, momentum=1 - {attrs['momentum']})"


class EmptyUntilLoaded:
    """A moving average whose values come with the first weights that are loaded."""

    def __init__(self, shadow: Shadow) -> None:
        self.shadow, self.loaded = shadow, False

    def update(self, decay: float) -> None:
        self.shadow.update(decay)

    def arrays(self) -> Arrays:
        return self.shadow.arrays() if self.loaded else {}

    def load(self, arrays: Mapping[str, Array]) -> None:
        self.shadow.load(arrays)
        self.loaded = True


class BrokenBackend(AcmeBackend):
    """Each fault is one that a port of a framework really had."""

    name = "broken"
    target = replace(AcmeBackend.target, name="broken")

    def __init__(self) -> None:
        ops: dict[str, Any] = dict(self.target.ops)
        layers = dict(TARGET.layers)
        if FAULT == "slope":
            ops["leaky_relu"] = "F.leaky_relu({0}, 0.2)"
        elif FAULT == "missing op":
            del ops["softplus"]
        elif FAULT == "padding":
            layers["Conv2d"] = replace(layers["Conv2d"], call=_symmetric)
        elif FAULT == "momentum of the norm":
            layers["BatchNorm2d"] = replace(layers["BatchNorm2d"], make=_swapped)
        elif FAULT == "stale declaration":
            self.known_failures = MappingProxyType({**self.known_failures, "ops/relu_*": "it is hard"})
        self.target = replace(self.target, ops=ops, layers=layers)

    def differentiate(self, call: MethodCall, options: Options) -> tuple[Arrays, Arrays]:
        if FAULT == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().differentiate(call, options)

    def open_session(
        self, source: Source, class_name: str, recipe: Recipe, names: Mapping[str, str], options: Options
    ) -> Session:
        if FAULT == "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        if FAULT == "decay":
            recipe = replace(recipe, groups=tuple(replace(group, weight_decay=0.0) for group in recipe.groups))
        if FAULT == "device":  # what is absent becomes a CPU in silence
            options = replace(options, device="cpu")
        session: Any = super().open_session(source, class_name, recipe, names, options)
        if FAULT == "empty average" and recipe.ema:
            session.shadow = EmptyUntilLoaded(session.shadow)
        if FAULT == "late momentum":  # the optimiser makes it at its first step
            whole = session.state
            session.state = lambda: {k: a for k, a in whole().items() if not k.startswith("momentum/") or a.any()}
        if FAULT == "loss outside forward":  # of the wrapper that exchanges gradients
            session.trainer = session.model
        return session  # type: ignore[no-any-return]


BACKEND = BrokenBackend()
