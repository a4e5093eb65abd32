"""PyTorch's words for the ops and layers. No framework is imported here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from portdet.lower.target import Layer, Target
from portdet.lower.text import Args, Attrs

DTYPES = {"float": "float", "float32": "float", "int32": "int", "bool": "bool"}


def _symmetric(attrs: Attrs) -> bool:
    top, bottom, left, right = attrs.raw["pads"]
    return bool(top == bottom and left == right)


def _conv(attrs: Attrs) -> str:
    """nn.Conv2d pads both sides alike: other pads are a F.pad before it."""
    if not _symmetric(attrs):
        padding = "0"
    elif attrs.raw["pads"][0] == attrs.raw["pads"][2]:
        padding = attrs.item("pads", 0)
    else:
        padding = f"({attrs.item('pads', 0)}, {attrs.item('pads', 2)})"
    groups = f", groups={attrs['groups']}" if attrs.raw["groups"] != 1 else ""
    words = f"{attrs['cin']}, {attrs['cout']}, {attrs['kernel']}, stride={attrs['stride']}"
    return f"nn.Conv2d({words}, padding={padding}{groups}, bias={attrs['bias']})"


def _conv_input(attrs: Attrs, x: str) -> str:
    if _symmetric(attrs):
        return x
    top, bottom, left, right = (attrs.item("pads", i) for i in range(4))
    return f"F.pad({x}, ({left}, {right}, {top}, {bottom}))"


def _norm(attrs: Attrs) -> str:
    return f"nn.BatchNorm2d({attrs['channels']}, eps={attrs['eps']}, momentum={attrs['momentum']})"


def _cast(a: Args) -> str:
    return f"{a.tight(0)}.{DTYPES[a.attrs.raw['dtype']]}()"


def _cast64(a: Args) -> str:
    return f"{a.tight(0)}.double()" if a.attrs.raw["dtype"] == "float" else _cast(a)


def _reduce(name: str) -> Callable[[Args], str]:
    def write(a: Args) -> str:
        raw = a.attrs.raw
        if raw["axis"] is None:
            return f"{a.tight(0)}.{name}()"
        keep = ", keepdim=True" if raw.get("keepdims") else ""
        return f"{a.tight(0)}.{name}(dim={a.attrs['axis']}{keep})"

    return write


def _inplace(a: Args) -> str:
    """Half the memory of each unit; YOLOv3's step takes 4 to 6 % less time on a CPU."""
    return ", inplace=True" if a.spare else ""


def _extremum(a: Args, name: str, bound: str) -> str:
    """A number becomes a bound of `clamp`, whose gradient at the bound itself is not ours (0 or 1 against 1/2)."""
    if a.texts[1][0].startswith("\0"):
        return f"torch.clamp({a[0]}, {bound}={a[1]})"
    return f"torch.{name}({a[0]}, {a[1]})"


TARGET = Target(
    name="torch",
    header="import torch\nfrom torch import nn\nfrom torch.nn import functional as F",
    base="nn.Module",
    forward="forward",
    sequential="nn.Sequential",
    reserved=frozenset({"torch", "nn", "F"}),
    layers={
        "Conv2d": Layer(_conv, {"weight": "weight", "bias": "bias"}, _conv_input),
        "BatchNorm2d": Layer(
            _norm,
            {"weight": "weight", "bias": "bias", "running_mean": "running_mean", "running_var": "running_var"},
        ),
    },
    ops={
        "abs": "torch.abs({0})",
        "relu": lambda a: f"F.relu({a[0]}{_inplace(a)})",
        "leaky_relu": lambda a: f"F.leaky_relu({a[0]}, {a.attrs['slope']}{_inplace(a)})",
        "sigmoid": "torch.sigmoid({0})",
        "tanh": "torch.tanh({0})",
        "softplus": "F.softplus({0})",
        "mish": "F.mish({0})",
        "exp": "torch.exp({0})",
        "log": "torch.log({0})",
        "sqrt": "torch.sqrt({0})",
        "floor": "torch.floor({0})",
        "maximum": lambda a: _extremum(a, "maximum", "min"),
        "minimum": lambda a: _extremum(a, "minimum", "max"),
        "stop_gradient": "{0}.detach()",
        "bce_with_logits": "F.binary_cross_entropy_with_logits({0}, {1}, reduction='none')",
        "logical_not": "torch.logical_not({0})",
        "where": "torch.where({0}, {1}, {2})",
        "cast": _cast,
        "reshape": "{0}.reshape({shape})",
        "permute": "{0}.permute({axes})",
        "broadcast_to": "{0}.expand({shape})",
        "concat": "torch.cat({0}, dim={axis})",
        "stack": "torch.stack({0}, dim={axis})",
        "iota": "torch.arange({length}, dtype={0}.dtype, device={0}.device)",
        "constant": "torch.tensor({values}, dtype={0}.dtype, device={0}.device)",
        "gather": "torch.take_along_dim({0}, {1}.long()[..., None], dim=1)",
        "sum": _reduce("sum"),
        "mean": _reduce("mean"),
        "max": _reduce("amax"),
        "argmax": "torch.argmax({0}, dim={axis}).int()",
        "matmul": "torch.matmul({0}, {1})",
        "max_pool2d": "F.max_pool2d({0}, {kernel}, stride={stride}, padding={padding})",
        # with count_include_pad, torch.compile's gradient divides by the whole kernel at the edge (2.13)
        "avg_pool2d": "F.avg_pool2d({0}, {kernel}, ceil_mode=True, count_include_pad=False)",
        "upsample_nearest": "F.interpolate({0}, scale_factor={factor})",
    },
)

TARGET64 = replace(TARGET, ops={**TARGET.ops, "cast": _cast64})
"""The same detector in float64: what gradients are checked against."""
