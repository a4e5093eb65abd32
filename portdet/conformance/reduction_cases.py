"""Which sums, means and norms are tried: shapes up to those of a detector's feature maps, values off zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from portdet.ops import OPS
from portdet.session import Array

LONG = 11_520_000  # 18 x 200 x 200 x 16: a mean over it was 1.1e-3 off in one framework
Axis = int | tuple[int, ...] | None


@dataclass(frozen=True)
class Reduced:
    """One reduction. The values are N(offset, 1), cut to float32. bound: see `reductions.check`."""

    op: str
    shape: tuple[int, ...]
    axis: Axis
    keepdims: bool = False
    offset: float = 1.0

    @property
    def name(self) -> str:
        """sum_18x200x200x16_1_2_3_keepdims_at_100"""
        axes = "all" if self.axis is None else "_".join(map(str, np.atleast_1d(self.axis))).replace("-", "last")
        kept = "_keepdims" if self.keepdims else ""
        return f"{self.op}_{'x'.join(map(str, self.shape))}_{axes}{kept}_at_{self.offset:g}"

    @property
    def text(self) -> str:
        """The call, of the letter a."""
        attrs = f"axis={self.axis!r}" + (", keepdims=True" if self.keepdims else "")
        return f"ops.{self.op}(a, {attrs})"

    def values(self) -> Array:
        """The same ones for every op on a shape."""
        size = int(np.prod(self.shape))
        random = np.random.default_rng(size)
        drawn = random.standard_normal(size, np.float32) + np.float32(self.offset)
        return drawn.reshape(self.shape)

    def attrs(self) -> Mapping[str, Any]:
        """What the reference is called with."""
        return {"axis": self.axis, **({"keepdims": True} if self.keepdims else {})}

    def wanted(self, x: Array) -> Array:
        """In float64."""
        return np.asarray(OPS[self.op].reference(x.astype(np.float64), **self.attrs()))

    def scale(self, x: Array) -> Array:
        """What an error is a share of: the sum of the magnitudes (over n for a mean), or the value itself."""
        if self.op == "max":
            return np.abs(self.wanted(x))
        return np.asarray(OPS[self.op].reference(np.abs(x.astype(np.float64)), **self.attrs()))


def _sums(op: str) -> list[Reduced]:
    """Along every kind of axis, long and short, of few and of many outputs."""
    return [
        Reduced(op, (1,), None),
        Reduced(op, (7,), 0),
        Reduced(op, (100_003,), None, offset=0),
        Reduced(op, (100_003,), -1, offset=100),
        Reduced(op, (3, 100_003), 1),
        Reduced(op, (3, 100_003), -1, True, offset=1000),
        Reduced(op, (2, 1_000_003), 1),
        Reduced(op, (1_000_003, 2), 0),
        Reduced(op, (100_003, 3), 0),
        Reduced(op, (2, 3, 70_001), 2),
        Reduced(op, (2, 3, 70_001), -1, True),
        Reduced(op, (70_001, 2, 3), 0),
        Reduced(op, (2, 70_001, 3), 1, offset=0),
        Reduced(op, (4, 160, 160, 3), (1, 2, 3)),
        Reduced(op, (4, 160, 160, 3), (0, 1, 2), True),
        Reduced(op, (2, 8, 160, 160), (0, 2, 3), offset=0),
        Reduced(op, (2, 8, 160, 160), (0, 2, 3), True, offset=1000),
        Reduced(op, (2, 8, 160, 160), (2, 3), offset=100),
        Reduced(op, (2, 8, 160, 160), 1),
        Reduced(op, (18, 200, 200, 16), None),
    ]


def _largest() -> list[Reduced]:
    return [
        Reduced("max", (100_003,), None, offset=0),
        Reduced("max", (3, 100_003), 1, offset=100),
        Reduced("max", (2, 8, 160, 160), (2, 3), True),
        Reduced("argmax", (3, 100_003), 1),
        Reduced("argmax", (2, 70_001, 3), 1),
    ]


REDUCED: tuple[Reduced, ...] = (*_sums("sum"), *_sums("mean"), *_largest())


@dataclass(frozen=True)
class Normed:
    """Batch norm in training, its weight 1 and its bias 0, on values N(offset, 1)."""

    shape: tuple[int, int, int, int]
    offset: float

    @property
    def name(self) -> str:
        return f"batch_norm_{'x'.join(map(str, self.shape))}_at_{self.offset:g}"


NORMED = tuple(
    Normed(shape, offset) for shape in ((2, 8, 160, 160), (4, 16, 13, 13), (2, 8, 2, 2)) for offset in (0, 1, 100, 1000)
)


@dataclass(frozen=True)
class Spread:
    """A product with a factor that is broadcast: the factor's gradient is a sum over all that it was spread to."""

    shape: tuple[int, ...]
    factor: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"mul_{'x'.join(map(str, self.shape))}_by_{'x'.join(map(str, self.factor))}"


SPREAD = (Spread((2, 8, 160, 160), (1, 8, 1, 1)), Spread((100_003, 3), (3,)), Spread((3, 100_003), (3, 1)),
          Spread((4, 160, 160, 3), (4, 1, 1, 3)))  # fmt: skip


def norm_truth(x: Array, cotangent: Array, eps: float) -> tuple[Array, Array]:
    """y and d sum(y * cotangent) / dx in float64, mean and variance in two passes."""
    axes, x = (0, 2, 3), x.astype(np.float64)
    centred = x - x.mean(axes, keepdims=True)
    inverse = 1 / np.sqrt((centred**2).mean(axes, keepdims=True) + eps)
    y, g = centred * inverse, cotangent.astype(np.float64)
    return y, inverse * (g - g.mean(axes, keepdims=True) - y * (g * y).mean(axes, keepdims=True))
