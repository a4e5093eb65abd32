"""Paddle's words for the ops and layers. No framework is imported here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal

from portdet.lower.target import Layer, Target
from portdet.lower.text import Args, Attrs

DTYPES = {"float": "float32", "float32": "float32", "int32": "int32", "bool": "bool"}

# Batch norm: Paddle 3.3 stores the biased variance of a batch on CPU and, by its source, the unbiased one under cuDNN,
# which takes all 4-d inputs on GPU. With new = keep * old + (1 - keep) * v, the wanted
# keep * old + (1 - keep) * v * n / (n - 1) is new + (new - keep * old) / (n - 1): vectors of C values, 1.4 ms in a step
# of YOLOv3. The kernel gets a copy to update: backward refuses a variance that was changed after it.
# Cross entropy: Paddle's own gives the target no gradient and does not broadcast. This form neither overflows nor
# cancels, and its gradient at 0 is right.
HEADER = """import paddle
from paddle import nn
from paddle.nn import functional as F"""

HELPERS = {
    "BatchNorm2D": """\
class BatchNorm2D(nn.BatchNorm2D):  # stores a batch's unbiased variance; Paddle's own stores the biased one on CPU
    def forward(self, x):
        if not self.training or paddle.get_device() != "cpu":
            return super().forward(x)
        variance, others = self._variance.clone(), x.shape[0] * x.shape[2] * x.shape[3] - 1
        y = F.batch_norm(x, self._mean, variance, self.weight, self.bias, True, self._momentum, self._epsilon)
        paddle.assign(variance + (variance - self._variance * self._momentum) / others, self._variance)
        return y""",
    "bce_with_logits": """\
def bce_with_logits(x, target):  # Paddle's own gives the target no gradient
    return F.softplus(-x) * target + F.softplus(x) * (1.0 - target)""",
    "total": """\
def total(x, axis, keepdim=False):  # in float32 Paddle adds one by one on a CPU
    if paddle.get_device() != "cpu":
        return x.sum(axis=axis, keepdim=keepdim)
    return x.sum(axis=axis, dtype="float64", keepdim=keepdim).astype(x.dtype)""",
    "average": """\
def average(x, axis=None, keepdim=False):  # Paddle's own adds one by one, over all axes too
    y = x.sum() if axis is None else total(x, axis, keepdim)
    return y / (x.size / y.size)""",
    "equal": """\
def equal(a, b):  # Paddle's own holds for numbers that are less than 1e-8 apart
    return (a <= b) & (a >= b)""",
    "mish": """\
def mish(x):  # the same values as F.mish, whose gradient takes three times as long on a CPU
    return x * F.tanh(F.softplus(x))""",
}


def _conv(attrs: Attrs) -> str:
    top, bottom, left, right = attrs.raw["pads"]
    padding = (
        attrs.item("pads", 0) if top == bottom == left == right else attrs.hole("pads", [top, bottom, left, right])
    )
    groups = f", groups={attrs['groups']}" if attrs.raw["groups"] != 1 else ""
    bias = "" if attrs.raw["bias"] else ", bias_attr=False"
    words = f"{attrs['cin']}, {attrs['cout']}, {attrs['kernel']}, stride={attrs['stride']}"
    return f"nn.Conv2D({words}, padding={padding}{groups}{bias})"


def _norm(attrs: Attrs) -> str:
    """Paddle's momentum weighs the old value: 1 - 0.1 is written 0.9, not 0.90000000000000002."""
    keep = attrs.hole("keep", float(1 - Decimal(str(attrs.raw["momentum"]))))
    return f"BatchNorm2D({attrs['channels']}, momentum={keep}, epsilon={attrs['eps']})"


def _max(a: Args) -> str:
    raw = a.attrs.raw
    if raw["axis"] is None:
        return f"{a.tight(0)}.max()"
    keep = ", keepdim=True" if raw.get("keepdims") else ""
    return f"{a.tight(0)}.max(axis={a.attrs['axis']}{keep})"


def _sum(name: str, whole: str) -> Callable[[Args], str]:
    """whole: the text over all axes, which Paddle's `sum` adds in float64 or as a tree."""

    def write(a: Args) -> str:
        raw = a.attrs.raw
        if raw["axis"] is None:
            return whole.format(a[0], tight=a.tight(0))
        keep = ", keepdim=True" if raw.get("keepdims") else ""
        return f"{name}({a[0]}, {a.attrs['axis']}{keep})"

    return write


def _reshape(a: Args) -> str:
    return f"{a.tight(0)}.reshape({', '.join(a.attrs.hole('shape', size) for size in a.attrs.raw['shape'])})"


def _stack(a: Args) -> str:
    axis = f", axis={a.attrs['axis']}" if a.attrs.raw["axis"] else ""
    return f"paddle.stack({a[0]}{axis})"


def _extremum(name: str, bound: str) -> Callable[[Args], str]:
    """Tensors only: a number becomes a bound of `clip`, whose other bound would be the largest finite number."""

    def write(a: Args) -> str:
        if a.texts[1][0].startswith("\0"):
            return f"paddle.clip({a[0]}, {bound})".format(a[1])
        return f"paddle.{name}({a[0]}, {a[1]})"

    return write


def _deform_conv(attrs: Attrs, inputs: Sequence[str]) -> list[str]:
    x, offset, mask = inputs
    words = f"stride={attrs['stride']}, padding={attrs['padding']}, mask={mask}"
    return [f"return paddle.vision.ops.deform_conv2d({x}, {offset}, self.conv.weight, {words})"]


TARGET = Target(
    name="paddle",
    header=HEADER,
    base="nn.Layer",
    forward="forward",
    sequential="nn.Sequential",
    reserved=frozenset({"paddle", "nn", "F"}),
    helpers=HELPERS,
    layers={
        "Conv2d": Layer(_conv, {"weight": "weight", "bias": "bias"}),
        "BatchNorm2d": Layer(
            _norm, {"weight": "weight", "bias": "bias", "running_mean": "_mean", "running_var": "_variance"}
        ),
    },
    natives={"DeformConv2d": _deform_conv},
    ops={
        "abs": "paddle.abs({0})",
        "relu": "F.relu({0})",
        "leaky_relu": "F.leaky_relu({0}, {slope})",  # at exactly 0 its gradient is 1, the slope elsewhere
        "sigmoid": "F.sigmoid({0})",
        "tanh": "F.tanh({0})",
        "softplus": "F.softplus({0})",
        "mish": "mish({0})",
        "exp": "paddle.exp({0})",
        "log": "paddle.log({0})",
        "sqrt": "paddle.sqrt({0})",
        "floor": "paddle.floor({0})",
        "maximum": _extremum("maximum", "{0}, float('inf')"),
        "minimum": _extremum("minimum", "-float('inf'), {0}"),
        "stop_gradient": "{0}.detach()",
        "bce_with_logits": "bce_with_logits({0}, {1})",
        "equal": "equal({0}, {1})",
        "logical_not": "paddle.logical_not({0})",
        "where": "paddle.where({0}, {1}, {2})",
        "cast": lambda a: f"{a.tight(0)}.astype('{DTYPES[a.attrs.raw['dtype']]}')",
        "reshape": _reshape,
        "permute": "{0}.transpose({axes})",
        "broadcast_to": "{0}.expand({shape})",
        "concat": "paddle.concat({0}, axis={axis})",
        "stack": _stack,
        "iota": "paddle.arange({length}, dtype={0}.dtype)",
        "constant": "paddle.to_tensor({values}, dtype={0}.dtype)",
        "gather": "paddle.take_along_axis({0}, {1}.unsqueeze(-1), axis=1)",
        "sum": _sum("total", "{tight}.sum()"),
        "mean": _sum("average", "average({0})"),
        "max": _max,
        "argmax": "paddle.argmax({0}, axis={axis}, dtype='int32')",
        "matmul": "paddle.matmul({0}, {1})",
        "max_pool2d": "F.max_pool2d({0}, {kernel}, stride={stride}, padding={padding})",
        "avg_pool2d": "F.avg_pool2d({0}, {kernel}, ceil_mode=True)",
        "upsample_nearest": "F.interpolate({0}, scale_factor={factor})",
    },
)
