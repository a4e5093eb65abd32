"""Faults in the graph of a detector's head and loss, and of what PP-YOLO has beside YOLOv3."""

from __future__ import annotations

from typing import Any

from portdet import ops
from portdet.align.ladder.fault_graph import Pick, Site, again, below, edited, entry
from portdet.align.ladder.fault_model import holding, line, next_layer
from portdet.align.ladder.fault_planting import Fault, Planting, Subject
from portdet.ir.graph import ModuleGraph, Node, Size, Value

XY, PREDICT = ("loss/xy",), ("forward/predict*",)  # all of it, or the scores


def _in(method: str, op: str, *numbers: float) -> Pick:
    """A line of a spec function; numbers: what its second operand has to be, if it has to be a number."""

    def pick(site: Site, node: Node) -> bool:
        if node.op != op or site.method != method:
            return False
        return not numbers or (isinstance(node.args[1], int | float) and node.args[1] in numbers)

    return pick


def _with_number(
    name: str, real: str, method: str, op: str, field: str, others: tuple[float, float], *first: str
) -> Fault:
    """The number of a field of the model, where a spec function uses it, exchanged for the first of `others` that it
    is not."""

    def plant(subject: Subject) -> Planting | None:
        graph, number = subject.detector.graph, getattr(subject.detector.fields, field, None)
        other = next(value for value in others if value != number)
        pick = _in(method, op, number) if number is not None else _never
        faulty, sites = edited(graph, pick, lambda node: again(node, node.args[0], other))
        return Planting(first, holding(subject.detector, faulty)) if sites else None

    return Fault(name, real, "graph", plant)


def _never(site: Site, node: Node) -> bool:
    return False


def _unless(fault: Fault, field: str) -> Fault:
    """Not for a detector whose field is set: there it would be right."""

    def plant(subject: Subject) -> Planting | None:
        return None if getattr(subject.detector.fields, field, None) else fault.plant(subject)

    return Fault(fault.name, fault.real, fault.where, plant)


def _if(fault: Fault, field: str) -> Fault:
    """For a detector whose field is set alone."""

    def plant(subject: Subject) -> Planting | None:
        return fault.plant(subject) if getattr(subject.detector.fields, field, None) else None

    return Fault(fault.name, fault.real, fault.where, plant)


def _anchors_turned(subject: Subject) -> Planting | None:
    """Height and width of every anchor exchanged, wherever they are used."""
    anchors = {tuple(pair) for pair in getattr(subject.detector.fields, "anchors", ()) if pair[0] != pair[1]}

    def of(values: Any) -> Any:
        if not isinstance(values, tuple | list):
            return values
        return tuple(reversed(values)) if tuple(values) in anchors else tuple(of(item) for item in values)

    faulty, sites = edited(
        subject.detector.graph,
        lambda site, node: node.op == "constant" and of(node.attrs["values"]) != node.attrs["values"],
        lambda node: again(node, values=of(node.attrs["values"])),
    )
    return Planting(PREDICT, holding(subject.detector, faulty)) if sites else None


def _by_batch(site: Site, node: Node) -> bool:
    return site.method == "level_loss" and node.op == "div" and isinstance(node.args[1], Size)


def _small_boxes(site: Site, node: Node) -> bool:
    """2 - w * h."""
    return site.method == "level_loss" and node.op == "sub" and node.args[0] == 2.0


def _smoothed(node: Node) -> Any:
    return again(node) * 0.95 + 0.025


def _total(site: Site, node: Node) -> bool:
    """The sum that is trained on."""
    if site.module or site.method != "loss" or not isinstance(site.function.output, dict):
        return False
    return any(value is site.function.output["loss"] for value in node.outs)


def _scaled_gradient(node: Node) -> Any:
    total = again(node)
    return total + (total - ops.stop_gradient(total)) * 1023.0


LOSS = [
    Fault("anchors turned", "height before width in one framework's lists", "graph", _anchors_turned),
    line("mean for sum", "torch's default reduction for darknet's sum (Paddle #34900)", _in("level_loss", "sum"),
         lambda node: ops.mean(node.args[0], axis=None), XY),
    line("no half in the size's loss", "the squared error with a factor more, which no shape shows",
         _in("level_loss", "mul", 0.5), lambda node: again(node, node.args[0], 1.0), ("loss/wh",)),
    line("no weight for small boxes", "2 - w h left out of a loss", _small_boxes,
         lambda node: node.args[1] * 0.0 + 1.0, XY),
    line("loss over batch + 1", "another divisor: the batch of another rank, or of boxes", _by_batch,
         lambda node: again(node, node.args[0], node.args[1] + 1), XY),
    _with_number("threshold of ignored cells, less", "LuoJiaNET's 0.1 for mindspore-ai/models' 0.7", "level_loss",
                 "less", "ignore_threshold", (0.1, 0.7), "loss/obj"),
    _with_number("threshold of ignored cells, greater", "0.1 for 0.7, in PP-YOLO's form", "objectness", "greater",
                 "ignore_threshold", (0.1, 0.7), "loss/obj"),
    _unless(line("labels smoothed", "ppdet smooths by default, the original does not", _in("assign", "minimum"),
                 _smoothed, ("loss/cls",)), "label_smooth"),
    line("centres not rounded", "darknet's centres in a port of mindspore-ai/models, which takes whole pixels",
         _in("box_targets", "floor"), lambda node: node.args[0], XY),
    line("loss scale left in the gradient", "unscaling forgotten or done twice under mixed precision", _total,
         _scaled_gradient, ("grad/*",)),
]  # fmt: skip


def _coordinates(graph: ModuleGraph, site: Site, node: Node) -> tuple[str, ...]:
    return (f"forward/{entry(below(graph, site.module))}",)


def _normalised(site: Site, node: Node) -> bool:
    """A mask over its mean."""
    return site.method == "drop_block" and node.op == "div" and isinstance(node.args[1], Value)


def _aware_factor(subject: Subject) -> Planting | None:
    factor = getattr(subject.detector.fields, "iou_factor", None)
    if factor is None:
        return None
    other = 0.4 if factor == 0.5 else 0.5
    new = {factor: other, 1.0 - factor: 1.0 - other}
    faulty, sites = edited(
        subject.detector.graph, _in("aware", "mul", *new),
        lambda node: again(node, node.args[0], new[node.args[1]]),
    )  # fmt: skip
    return Planting(PREDICT, holding(subject.detector, faulty)) if sites else None


def _deformed(site: Site, node: Node) -> bool:
    return node.call is not None and node.call.kind == "child" and len(node.args) == 3 and node.call.name == "conv"


def _offsets_turned(node: Node) -> Any:
    """x before y in every pair."""
    x, offset, mask = node.args
    batch, _, height, width = offset.shape
    pairs = ops.reshape(offset, shape=(batch, -1, 2, height, width))
    turned = ops.concat([pairs[:, :, 1:2], pairs[:, :, 0:1]], axis=2)
    return again(node, x, ops.reshape(turned, shape=(batch, -1, height, width)), mask)


def _deformable(graph: ModuleGraph, site: Site, node: Node) -> tuple[str, ...]:
    # offsets start at zero: what differs first is their gradient, later the layer itself
    return f"forward/{site.module}.conv", "grad/*.conv_offset.*"


PPYOLO = [
    line("range of CoordConv", "-1 to -0.5 from PaddleDetection 2.2 on: a bracket moved in PR #3744",
         _in("add_coordinates", "mul", 2.0), lambda node: again(node, node.args[0], 0.5), _coordinates),
    Fault("factor of the IoU-aware score", "PP-YOLOv2's 0.5 for PP-YOLO's 0.4", "graph", _aware_factor),
    _with_number("scale_x_y left out", "Grid Sensitive missing in decoding", "within", "mul", "scale_x_y",
                 (1.0, 1.05), *PREDICT, *XY),
    _with_number("factor of the IoU term", "2.5 left at 1", "level_loss", "mul", "iou_weight", (1.0, 2.5), "loss/iou"),
    _if(line("gradient through the IoU-aware target", "the target's detach forgotten",
             _in("level_loss", "stop_gradient"), lambda node: node.args[0], ("grad/output*",)), "iou_aware"),
    line("DropBlock without its scale", "features dropped, the rest not made up for", _normalised,
         lambda node: node.args[0], XY),
    line("DropBlock twice as often", "gamma from another formula of the block's share",
         _in("drop_block", "less"), lambda node: again(node, node.args[0], 2 * node.args[1]), XY),
    line("factors of deformable taps doubled", "2 sigmoid, as MMCV's variants have it",
         lambda site, node: node.op == "sigmoid" and site.method == "forward",
         lambda node: again(node) * 2.0, next_layer),
    line("offsets x before y", "the order of a deformable convolution's pairs, which differs between libraries",
         _deformed, _offsets_turned, _deformable),
]  # fmt: skip
