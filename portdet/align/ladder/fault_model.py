"""Faults in the graph: what hand-written layers, heads and losses get wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from portdet import ops
from portdet.align.ladder.fault_graph import (
    Make,
    Pick,
    Site,
    after,
    again,
    before,
    below,
    configured,
    edited,
    entry,
    found,
    of_class,
)  # fmt: skip
from portdet.align.ladder.fault_planting import Fault, Planting, Subject
from portdet.ir.graph import ModuleGraph, Node, Value
from portdet.models import Detector

Settings = Mapping[str, Any]
First = Callable[[ModuleGraph, Site, Node], tuple[str, ...]]
"""What has to be named first, from the first line that is changed."""


# ---------------------------------------------------------------------- arguments of leaf layers
def _layer(
    name: str,
    real: str,
    class_name: str,
    change: Callable[[Settings], Settings | None],
    first: Callable[[str], str],
    *,
    every: bool = False,
) -> Fault:
    """Other constructor arguments for the middle one (or every one) of the layers that `change` has any for."""

    def plant(subject: Subject) -> Planting | None:
        graph = subject.detector.graph
        fitting = [m.path for m in of_class(graph, class_name) if change(m.config)]
        if not fitting:
            return None
        chosen = fitting if every else [fitting[len(fitting) // 2]]
        faulty = configured(graph, lambda m: (change(m.config) or {}) if m.path in chosen else {})
        return Planting((first(chosen[0]),), holding(subject.detector, faulty))

    return Fault(name, real, "graph", plant)


def holding(detector: Detector, graph: ModuleGraph) -> Detector:
    return replace(detector, graph=graph)


def _other_side(config: Settings) -> Settings | None:
    """Of a 3x3 of stride 2: padding at top and left for bottom and right; for both, bottom and right."""
    if config["kernel"] != 3 or config["stride"] != 2:
        return None
    top, bottom, left, right = config["pads"]
    return {"pads": (0, 1, 0, 1) if top == bottom else (bottom, top, right, left)}


def _swapped_momentum(config: Settings) -> Settings | None:
    return {"momentum": 1 - config["momentum"]} if config["momentum"] != 0.5 else None


def _forward(path: str) -> str:
    return f"forward/{path}"


def _running(path: str) -> str:
    return f"step/weights/{path}.running_mean"


LAYERS = [
    _layer("epsilon of one norm", "TF port of a transformer: norms' epsilon wrong for months (transformers #19454)",
           "BatchNorm2d", lambda c: {"eps": 1e-4}, _forward),
    _layer("epsilon of all norms", "Keras' and TensorFlow's default 1e-3 kept for 1e-5", "BatchNorm2d",
           lambda c: {"eps": 1e-3}, _forward, every=True),
    _layer("momentum of one norm swapped", "0.9 for 0.1: it weighs the old value in Paddle (Paddle #32810)",
           "BatchNorm2d", _swapped_momentum, _running),
    _layer("momentum of all norms swapped", "MaxViT with the other framework's convention (torchvision #8250)",
           "BatchNorm2d", _swapped_momentum, _running, every=True),
    _layer("momentum of one norm 0.03", "YOLOv5's 0.03 in a port of another detector", "BatchNorm2d",
           lambda c: {"momentum": 0.03}, _running),
    _layer("padding on the other side", "'same' of TensorFlow and MindSpore pads bottom and right (Paddle #67238)",
           "Conv2d", _other_side, _forward),
]  # fmt: skip


def _stride_in_front(subject: Subject) -> Planting | None:
    """Bottlenecks with stride 2 in their first 1x1."""
    graph = subject.detector.graph
    strides: dict[str, int] = {}
    for block in of_class(graph, "Bottleneck"):
        middle = block.children["conv2"].children["conv"]
        if middle.class_name == "Conv2d" and middle.config["stride"] == 2:
            strides |= {f"{block.path}.conv1.conv": 2, middle.path: 1}
    if not strides:
        return None
    faulty = configured(graph, lambda m: {"stride": strides[m.path]} if m.path in strides else {})
    return Planting((_forward(next(iter(strides))),), holding(subject.detector, faulty))


LAYERS.append(
    Fault("stride in the first 1x1", "Caffe's ResNet for torch's; their weights fit both", "graph", _stride_in_front)
)


# ---------------------------------------------------------------------- lines of methods
def line(name: str, real: str, pick: Pick, make: Make, first: First | tuple[str, ...], *, once: bool = False) -> Fault:
    """The picked lines of the spec written otherwise."""

    def plant(subject: Subject) -> Planting | None:
        graph = subject.detector.graph
        nodes = found(graph, pick)
        if not nodes:
            return None
        names = first if isinstance(first, tuple) else first(graph, *nodes[0])
        return Planting(names, holding(subject.detector, edited(graph, pick, make, once=once)[0]))

    return Fault(name, real, "graph", plant)


def _own(graph: ModuleGraph, site: Site, node: Node) -> tuple[str, ...]:
    return (_forward(site.module),)


def next_layer(graph: ModuleGraph, site: Site, node: Node) -> tuple[str, ...]:
    return (_forward(after(graph, site, node)),)


def _first_layer(graph: ModuleGraph, site: Site, node: Node) -> tuple[str, ...]:
    return (_forward(entry(below(graph, "backbone"))),)


def _op(op: str) -> Pick:
    return lambda site, node: node.op == op


def _images(site: Site, node: Node) -> bool:
    return site.module == "backbone" and node.call is not None and node.args[0] is site.function.inputs[0]


def _reversed(node: Node) -> Any:
    x = node.args[0]
    return again(node, ops.concat([x[:, 2:3], x[:, 1:2], x[:, 0:1]], axis=1))


def _activation(site: Site, node: Node) -> bool:
    return node.op in ("relu", "leaky_relu") and site.method == "forward"


def _residual(site: Site, node: Node) -> bool:
    """A sum of two feature maps."""
    tensors = [arg for arg in node.args if isinstance(arg, Value) and len(arg.dims) == 4]
    return node.op == "add" and site.method == "forward" and len(tensors) == 2


def _shifted(x: Any, axis: int, by: int) -> Any:
    """x moved by one place along axis 2 or 3; its border stays."""
    every = (slice(None),) * axis
    if by > 0:
        parts = [x[(*every, slice(0, 1))], x[(*every, slice(0, -1))]]
    else:
        parts = [x[(*every, slice(1, None))], x[(*every, slice(-1, None))]]
    return ops.concat(parts, axis=axis)


def smoothed(x: Any) -> Any:
    """What nearest by 2 gave, by (1, 2, 1) / 4 along both axes: bilinear by 2, pixels as areas."""
    for axis in (2, 3):
        x = (_shifted(x, axis, 1) + x * 2.0 + _shifted(x, axis, -1)) * 0.25
    return x


def _fused(site: Site, node: Node) -> bool:
    """What comes up is put beside what the backbone has."""
    resized = [n.outs[0] for n in site.function.nodes if n.op == "upsample_nearest"]
    return node.op == "concat" and any(value in resized for value in node.args[0])


def _branch(graph: ModuleGraph, site: Site, node: Node) -> tuple[str, ...]:
    return (f"grad/{before(site, node)}.*",)


ARCHITECTURE = [
    line("channels BGR", "OpenCV's order fed to a model of RGB", _images, _reversed, _first_layer),
    line("slope of leaky ReLU", "torch's default 0.01 for darknet's 0.1", _op("leaky_relu"),
          lambda node: again(node, slope=0.01), _own),
    line("an activation left out", "a layer of a configuration that the port overlooked", _activation,
          lambda node: node.args[0], _own, once=True),
    line("a shortcut left out", "a sum lost by a converter of graphs", _residual, lambda node: node.args[0], _own,
          once=True),
    line("bilinear for nearest", "another framework's default of resize", _op("upsample_nearest"),
         lambda node: smoothed(again(node)), next_layer),
    line("resize shifted by a pixel", "align_corners and half_pixel, which convert to one another only in part",
          _op("upsample_nearest"), lambda node: _shifted(_shifted(again(node), 2, -1), 3, -1), next_layer),
    line("order of concat", "weights converted for another order of the features", _fused,
          lambda node: again(node, tuple(reversed(node.args[0]))), next_layer),
    line("a branch without gradient", "detach() left from debugging, or set_stop_gradient of an earlier framework",
          _op("upsample_nearest"), lambda node: again(node, ops.stop_gradient(node.args[0])), _branch, once=True),
    line("largest for average", "ResNet-vd's shortcut with the pooling of another variant", _op("avg_pool2d"),
          lambda node: ops.max_pool2d(node.args[0], kernel=2, stride=2, padding=0), next_layer),
]  # fmt: skip
