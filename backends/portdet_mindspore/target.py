"""MindSpore's words for the ops and layers. No framework is imported here.

Ops are `ops.*`: most of `mint.*` runs on Ascend only. Numbers that MindSpore would default differently (pad_mode
'same', no bias, batch norm's momentum as the share that is kept) are written out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal

from portdet.lower.target import Layer, Target
from portdet.lower.text import Args, Attrs

# On a CPU, MindSpore 2.10's float32 kernels are approximations. Worst of 100,000 values: tanh is 1e-4 off at 5; exp
# 4e-6 of its value up to 20 and 2e-5 at 88; sigmoid 2e-6 of its value; softplus 3e-6; log 6e-8 next to 1, where that is
# all of it. Its float64 kernels are the C library's: these ops are computed in float64 there.
# Mish is x n / (n + 2), n = e^2x + 2 e^x, and x from 10 on. Its gradient, written out, keeps x alone; that of the form
# above keeps five tensors, and two large terms of it cancel.
HELPERS = {
    "on_cpu": """\
@ops.constexpr
def on_cpu():  # known when a graph is built
    return get_context('device_target') == 'CPU'""",
    "exact": """\
def exact(op, x):  # MindSpore's own kernels on a CPU are exact in float64 only
    return op(x.double()).astype(x.dtype) if on_cpu() else op(x)""",
    "softplus": """\
def softplus(x):
    if not on_cpu():
        return ops.softplus(x)
    y = x.double()  # of float64 too, ops.softplus is computed in float32
    low = ops.where(y > 40.0, 0.0 * y + 40.0, y)  # ops.minimum hides nan
    return ops.where(y > 40.0, y, ops.log(ops.exp(low) + 1.0)).astype(x.dtype)""",
    "mish": """\
class Mish(nn.Cell):  # x n / (n + 2), n = e^2x + 2 e^x; x from 10 on
    def construct(self, x):
        e = exact(ops.exp, ops.minimum(x, 10.0))
        n = e * (e + 2.0)
        return x * (n / (n + 2.0))

    def bprop(self, x, y, slope):
        x = ops.minimum(x, 10.0)
        e = exact(ops.exp, x)
        n = e * (e + 2.0)
        r = 1.0 / (n + 2.0)
        return (slope * (r * (n + 4.0 * r * e * (e + 1.0) * x)),)


mish = Mish()""",
}

DTYPES = {"float": "float", "float32": "float", "int32": "int", "bool": "bool"}


def _conv(attrs: Attrs) -> str:
    """pad_mode 'pad' takes one number, or top, bottom, left, right."""
    padding = attrs.item("pads", 0) if len(set(attrs.raw["pads"])) == 1 else attrs["pads"]
    groups = f", group={attrs['groups']}" if attrs.raw["groups"] != 1 else ""
    words = f"{attrs['cin']}, {attrs['cout']}, {attrs['kernel']}, stride={attrs['stride']}"
    return f"nn.Conv2d({words}, pad_mode='pad', padding={padding}{groups}, has_bias={attrs['bias']})"


def _norm(attrs: Attrs) -> str:
    """The spec's momentum weighs the new value, MindSpore's the old one; 1 - 0.9 is written 0.1."""
    keep = float(1 - Decimal(repr(attrs.raw["momentum"])))
    return f"nn.BatchNorm2d({attrs['channels']}, eps={attrs['eps']}, momentum={attrs.hole('momentum', keep)})"


def _max_pool2d(a: Args) -> str:
    """As nn.MaxPool2d does with padding. `ops.max_pool2d` gives the same, and its gradient on CPU takes 6.6 s for
    (8, 16, 112, 112), where this one takes 0.02 s (2.10)."""
    kernel, stride, padding = (a.attrs[name] for name in ("kernel", "stride", "padding"))
    pads = ", ".join([padding] * 4)
    pool = f"ops.MaxPool3D((1, {kernel}, {kernel}), (1, {stride}, {stride}), 'pad', (0, 0, {pads}))"
    return f"{pool}({a.tight(0)}.expand_dims(2)).squeeze(2)"


def _reduce(name: str, keepdims: str) -> Callable[[Args], str]:
    """Along the first or last axis alone, on a CPU, MindSpore adds one by one in float32: 5e-5 off over 640,000 values.
    Along two axes it does not, so an axis of one value is put in front."""

    def write(a: Args) -> str:
        raw = a.attrs.raw
        if raw["axis"] is None:
            return f"{a.tight(0)}.{name}()"
        keep = f", {keepdims}=True" if raw.get("keepdims") else ""
        axes = raw["axis"] if isinstance(raw["axis"], tuple) else (raw["axis"],)
        if len(axes) > 1:
            return f"{a.tight(0)}.{name}(axis={a.attrs['axis']}{keep})"
        both = a.attrs.hole("axes", (0, axes[0] + 1 if axes[0] >= 0 else axes[0]))
        return f"{a.tight(0)}.expand_dims(0).{name}(axis={both}{keep})" + (".squeeze(0)" if keep else "")

    return write


def _max(a: Args) -> str:
    keep = ", keepdims=True" if a.attrs.raw.get("keepdims") else ""
    return f"ops.amax({a[0]}, axis={a.attrs['axis']}{keep})"


def _upsample(a: Args) -> str:
    """On CPU this form trains twice as fast as reshape and broadcast in PyNative, and equally fast in graph mode."""
    factor = a.attrs.hole("factor", float(a.attrs.raw["factor"]))
    return f"ops.interpolate({a[0]}, scale_factor={factor}, recompute_scale_factor=True)"


def _deform_conv(attrs: Attrs, inputs: Sequence[str]) -> list[str]:
    """MindSpore takes one tensor of all dx, all dy, all factors. At a position of exactly -1, where zero offsets put
    the taps in the padding, its gradient is one-sided (2.10, CPU); the spec's and Paddle's is 0."""
    x, offset, mask = inputs
    kernel, stride, padding = attrs["kernel"], attrs["stride"], attrs["padding"]
    return [
        f"batch, _, h, w = {offset}.shape",
        f"{offset} = {offset}.reshape(batch, {kernel}, {kernel}, 2, h, w)",
        f"dy, dx, tap = {offset}[:, :, :, 0], {offset}[:, :, :, 1], ops.arange({kernel}, dtype={x}.dtype)",
        f"rows = tap.reshape(-1, 1, 1, 1) + ops.arange(h, dtype={x}.dtype).reshape(-1, 1) * {stride} - {padding}",
        f"columns = tap.reshape(-1, 1, 1) + ops.arange(w, dtype={x}.dtype) * {stride} - {padding}",
        "dy = ops.where(dy + rows == -1, ops.stop_gradient(dy), dy).reshape(batch, -1, h, w)",
        "dx = ops.where(dx + columns == -1, ops.stop_gradient(dx), dx).reshape(batch, -1, h, w)",
        f"blocks = ops.concat((dx, dy, {mask}), axis=1)",
        f"return ops.deformable_conv2d({x}, self.conv.weight, blocks, ({kernel}, {kernel}), "
        f"(1, 1, {stride}, {stride}), ({padding}, {padding}, {padding}, {padding}))",
    ]


TARGET = Target(
    name="mindspore",
    header="from mindspore import Tensor, get_context, nn, ops",
    base="nn.Cell",
    forward="construct",
    sequential="nn.SequentialCell",
    reserved=frozenset({"Tensor", "get_context", "nn", "ops", "Mish"}),
    helpers=HELPERS,
    layers={
        "Conv2d": Layer(_conv, {"weight": "weight", "bias": "bias"}),
        "BatchNorm2d": Layer(
            _norm,
            {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"},
        ),
    },
    natives={"DeformConv2d": _deform_conv},
    ops={
        "abs": "ops.abs({0})",
        "relu": "ops.relu({0})",
        "leaky_relu": "ops.leaky_relu({0}, {slope})",
        "sigmoid": "exact(ops.sigmoid, {0})",
        "tanh": "exact(ops.tanh, {0})",
        "softplus": "softplus({0})",
        "mish": "mish({0})",
        "exp": "exact(ops.exp, {0})",
        "log": "exact(ops.log, {0})",
        "sqrt": "ops.sqrt({0})",
        "floor": "ops.floor({0})",
        "maximum": "ops.maximum({0}, {1})",
        "minimum": "ops.minimum({0}, {1})",
        "stop_gradient": "ops.stop_gradient({0})",
        "bce_with_logits": "ops.binary_cross_entropy_with_logits({0}, {1}, reduction='none')",
        "logical_and": "ops.logical_and({0}, {1})",
        "logical_not": "ops.logical_not({0})",
        "where": "ops.where({0}, {1}, {2})",
        "cast": lambda a: f"{a.tight(0)}.{DTYPES[a.attrs.raw['dtype']]}()",
        "reshape": "{0}.reshape({shape})",
        "permute": "ops.transpose({0}, {axes})",
        "broadcast_to": "ops.broadcast_to({0}, {shape})",
        "concat": "ops.concat({0}, axis={axis})",
        "stack": "ops.stack({0}, axis={axis})",
        "iota": "ops.arange({length}, dtype={0}.dtype)",
        "constant": "Tensor({values}, {0}.dtype)",
        "gather": "ops.gather({0}, {1}, axis=1, batch_dims=1)",
        "sum": _reduce("sum", "keepdims"),
        "mean": _reduce("mean", "keep_dims"),
        "max": _max,
        "argmax": "ops.argmax({0}, dim={axis}).int()",
        "matmul": "ops.matmul({0}, {1})",
        "max_pool2d": _max_pool2d,
        "avg_pool2d": "ops.avg_pool2d({0}, {kernel}, stride={kernel}, ceil_mode=True)",
        "upsample_nearest": _upsample,
    },
)
