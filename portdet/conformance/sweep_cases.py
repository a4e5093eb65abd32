"""What is swept: each elementwise op, with its derivatives in closed form and how exact a working kernel is.

The bounds are what correctly working kernels of three frameworks show, times about two: exact operations 0 ulp, those
that round once 1, elementary functions 1 to 5 (Paddle's tanh 4.7, torch's sigmoid 2.2, its mish 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from portdet.conformance.grids import everywhere, pairs, positive
from portdet.ops import OPS
from portdet.session import Array

Inputs = Callable[[], tuple[Array, ...]]
Slope = Callable[..., Array]


@dataclass(frozen=True)
class Swept:
    """One op with its attributes.

    bound: ulps at max(|value|, least). slopes: d out / d input by letter, where it is defined; slope_bound and
    slope_least as bound and least. Most slopes are of order 1, and below that their absolute error counts.
    smooth: where slopes are compared; elsewhere frameworks differ by definition, or a correct kernel overflows.
    """

    name: str
    op: str
    inputs: Inputs
    bound: float = 0.0
    least: float = 0.0
    slopes: Mapping[str, Slope] = field(default_factory=dict)
    slope_bound: float = 0.0
    slope_least: float = 1.0
    smooth: Callable[..., Array] = lambda *inputs: np.ones(inputs[0].shape, bool)
    number: float | None = None  # the last argument, where it is a number
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def text(self, inputs: Sequence[str]) -> str:
        """The call, of the inputs' texts."""
        words = [*inputs, *([] if self.number is None else [repr(self.number)])]
        return f"ops.{self.op}({', '.join([*words, *(f'{key}={value!r}' for key, value in self.attrs.items())])})"

    def wanted(self, inputs: Sequence[Array]) -> Array:
        """The reference's values for float64 inputs."""
        more = [] if self.number is None else [self.number]
        return np.asarray(OPS[self.op].reference(*inputs, *more, **self.attrs))


def _all() -> tuple[Array, ...]:
    return (everywhere(),)


def _positive() -> tuple[Array, ...]:
    return (positive(),)


def _flags() -> tuple[Array, ...]:
    a, b = pairs()
    return a > 0, b > 0


def _chosen() -> tuple[Array, ...]:
    a, b = pairs()
    return (a * np.float32(0.5) > b, a, b)


def _integers() -> tuple[Array, ...]:
    return (np.clip(everywhere(), -(2.0**31) + 256, 2.0**31 - 256).astype(np.float32),)


def _logits() -> tuple[Array, ...]:
    """Each logit with a target of 0, 1 or between."""
    x = everywhere()
    return x, np.choose(np.arange(x.size) % 4, [0.0, 1.0, 0.25, 0.9]).astype(np.float32)


def sigmoid(x: Array) -> Array:
    """In the form that does not overflow."""
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, e) / (1 + e))


def _mish_slope(x: Array) -> Array:
    """t + x (1 - t^2) sigmoid(x), t = tanh(softplus(x)) = n / (n + 2) with n = e^2x + 2 e^x."""
    e = np.exp(np.minimum(x, 40))
    n = e * (e + 2)
    return np.asarray(n / (n + 2) + np.clip(x, -800, 40) * 4 * e * (e + 1) / (n + 2) ** 2)


def _away(x: Array, *_: Array) -> Array:
    """Not at 0, where ReLUs have the slope of either side, or one between."""
    return np.abs(x) >= 2.0**-126


def _apart(a: Array, b: Array) -> Array:
    """Not at ties, nor where both count as 0."""
    return np.asarray((a != b) & (_away(a) | _away(b)))


def _quotients() -> tuple[Array, ...]:
    """By nothing that a kernel may take for zero: what sign infinity has then is nobody's business."""
    a, b = pairs()
    return a, np.where(np.abs(b) < 2.0**-126, np.float32(3), b)


def _moderate(a: Array, b: Array) -> Array:
    """Where the quotients that make up a slope of a / b stay inside float32."""
    size = [np.abs(x) for x in (a, b, a / np.where(b == 0, 1, b))]
    return np.all([(s > 1e-15) & (s < 1e15) for s in size], axis=0)  # type: ignore[no-any-return]


def _ones(x: Array, *_: Array) -> Array:
    return np.ones(x.shape)


def _zeros(x: Array, *_: Array) -> Array:
    return np.zeros(x.shape)


def _unary() -> list[Swept]:
    tanh = {"a": lambda x: 1 / np.cosh(np.clip(x, -400, 400)) ** 2}
    return [
        Swept("neg", "neg", _all, slopes={"a": lambda x: -np.ones(x.shape)}),
        Swept("abs", "abs", _all, slopes={"a": np.sign}, smooth=_away),
        Swept("relu", "relu", _all, slopes={"a": lambda x: (x > 0) * 1.0}, smooth=_away),
        Swept("leaky_relu", "leaky_relu", _all, 1.0, slopes={"a": lambda x: np.where(x > 0, 1, 0.1)}, slope_bound=1.0,
              smooth=_away, attrs={"slope": 0.1}),
        Swept("sigmoid", "sigmoid", _all, 5.0, slopes={"a": lambda x: sigmoid(x) * sigmoid(-x)}, slope_bound=2.0),
        Swept("tanh", "tanh", _all, 8.0, slopes=tanh, slope_bound=8.0),
        Swept("softplus", "softplus", _all, 4.0, 1e-9, slopes={"a": sigmoid}, slope_bound=2.0),
        Swept("mish", "mish", _all, 8.0, 1e-9, slopes={"a": _mish_slope}, slope_bound=16.0),
        Swept("exp", "exp", _all, 4.0, slopes={"a": np.exp}, slope_bound=4.0, slope_least=0.0),
        Swept("log", "log", _positive, 4.0, slopes={"a": lambda x: 1 / x}, slope_bound=2.0, slope_least=0.0),
        Swept("sqrt", "sqrt", _positive, 5.0, slopes={"a": lambda x: 0.5 / np.sqrt(x)}, slope_bound=5.0,
              slope_least=0.0),
        Swept("floor", "floor", _all),
        Swept("stop_gradient", "stop_gradient", _all, slopes={"a": _zeros}),
        Swept("cast_to_int32", "cast", _integers, attrs={"dtype": "int32"}),
        Swept("cast_to_float32", "cast", _all, attrs={"dtype": "float32"}),
        Swept("cast_of_bool", "cast", lambda: _flags()[:1], attrs={"dtype": "float"}),
        Swept("logical_not", "logical_not", lambda: _flags()[:1]),
        Swept("maximum_number", "maximum", _all, slopes={"a": lambda x: (x > 0.5) * 1.0},
              smooth=lambda x: x != 0.5, number=0.5),
        Swept("minimum_number", "minimum", _all, slopes={"a": lambda x: (x < 0.5) * 1.0},
              smooth=lambda x: x != 0.5, number=0.5),
    ]  # fmt: skip


def _binary() -> list[Swept]:
    quotient = {"a": lambda a, b: 1 / b, "b": lambda a, b: -a / b**2}
    larger = {"a": lambda a, b: (a > b) * 1.0, "b": lambda a, b: (b > a) * 1.0}
    smaller = {"a": lambda a, b: (a < b) * 1.0, "b": lambda a, b: (b < a) * 1.0}
    entropy = {"a": lambda x, t: sigmoid(x) - t, "b": lambda x, t: -x}
    sides = {"b": lambda c, a, b: c * 1.0, "c": lambda c, a, b: 1.0 - c}
    return [
        Swept("add", "add", pairs, 1.0, slopes={"a": _ones, "b": _ones}),
        Swept("sub", "sub", pairs, 1.0, slopes={"a": _ones, "b": lambda a, b: -np.ones(b.shape)}),
        Swept("mul", "mul", pairs, 1.0, slopes={"a": lambda a, b: b, "b": lambda a, b: a}),
        Swept("div", "div", _quotients, 1.0, slopes=quotient, slope_bound=3.0, slope_least=0.0, smooth=_moderate),
        Swept("maximum", "maximum", pairs, slopes=larger, smooth=_apart),
        Swept("minimum", "minimum", pairs, slopes=smaller, smooth=_apart),
        Swept("bce_with_logits", "bce_with_logits", _logits, 8.0, 1.0, slopes=entropy, slope_bound=4.0),
        Swept("less", "less", pairs),
        Swept("greater", "greater", pairs),
        Swept("equal", "equal", pairs),
        Swept("logical_and", "logical_and", _flags),
        Swept("where", "where", _chosen, slopes=sides),
    ]


SWEPT: tuple[Swept, ...] = (*_unary(), *_binary())
HIDDEN = np.array([np.nan, np.inf, -np.inf], np.float32)
"""What no op may turn into an ordinary number in silence where the reference does not: overflow is seen by it."""


def spoiled(case: Swept) -> tuple[Array, ...]:
    """Inputs of which the first of floats is HIDDEN; the others are 1, a condition is true. () for an op without."""
    kinds = [part.dtype for part in case.inputs()]
    if np.float32 not in kinds or case.op in ("cast", "less", "greater", "equal"):
        return ()
    first = kinds.index(np.dtype(np.float32))
    return tuple(HIDDEN if i == first else np.ones(HIDDEN.size, kind) for i, kind in enumerate(kinds))
