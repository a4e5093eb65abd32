"""YOLOv3-DarkNet53 in a `.cfg`: depths, channels and classes are read from it, everything else must be yolov3.cfg's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from portdet.errors import PortdetError
from portdet_convert import cfg, yolov3
from portdet_convert.cfg import Layer, Network, Value, said
from portdet_convert.files.darknet import Conv

Expected = tuple[str, dict[str, Value], Conv | None]
MASKS = ((6, 7, 8), (3, 4, 5), (0, 1, 2))
Layout = tuple[Sequence[int], Sequence[int]]
"""Residual blocks of the five stages; channels of the stem and the stages."""


def structure(depths: Sequence[int], channels: Sequence[int], outputs: int | None) -> list[Expected]:
    """The layers of yolov3.cfg with these sizes: kind, options, and the convolution's place in the model."""
    layers: list[Expected] = []
    ends: dict[int, int] = {}
    for conv in yolov3.darknet_order(depths, channels, outputs):
        transition = re.fullmatch(r"conv([12])", conv.name)
        if transition:
            layers.append(("route", {"layers": (len(layers) - 4,)}, None))
        stride = 2 if re.fullmatch(r"backbone\.conv[1-5]", conv.name) else 1
        layers.append((
            "convolutional",
            {
                "batch_normalize": int(conv.norm), "filters": conv.cout, "size": conv.kernel, "stride": stride,
                "padding": conv.kernel // 2, "groups": 1, "dilation": 1,
                "activation": "leaky" if conv.norm else "linear",
            },
            conv,
        ))  # fmt: skip
        if re.fullmatch(r"backbone\.layer.*\.conv2", conv.name):
            layers.append(("shortcut", {"from": (len(layers) - 3,), "activation": "linear"}, None))
        elif transition:
            layers.append(("upsample", {"stride": 2}, None))
            layers.append(("route", {"layers": (len(layers) - 1, ends[5 - int(transition[1])]), "groups": 1}, None))
        elif not conv.norm:
            head = int(conv.name[len("backblock")])
            layers.append(("yolo", {"classes": conv.cout // 3 - 5, "mask": MASKS[head]}, None))
        if stage := re.match(r"backbone\.(?:conv|layer)([1-5])", conv.name):
            ends[int(stage[1])] = len(layers) - 1
    return layers


def layout(network: Network) -> Layout | None:
    """Depths and channels, None if there are not five stages that begin with stride 2."""
    convs = [layer for layer in network.layers if layer.kind == "convolutional"]
    starts = [layer for layer in convs if layer.options["stride"] == 2][:5]
    if len(starts) < 5:
        return None
    borders = [*(layer.number for layer in starts), len(network.layers)]
    depths = tuple(
        sum(layer.kind == "shortcut" for layer in network.layers[start:end]) for start, end in pairwise(borders)
    )
    return depths, (convs[0].cout, *(layer.cout for layer in starts))


_FIX = "conversion is known for the layers of yolov3.cfg: other depths, widths and class counts, nothing else"


def convolutions(network: Network, count: int) -> list[Conv]:
    """The convolutions of a weight file with `count` float32 values, which are the network's first layers or all.

    Only layers that the file holds values of are compared: darknet53.conv.74 agrees with darknet53.cfg too. Raises
    `PortdetError` naming the first layer that differs from YOLOv3-DarkNet53, or where the file ends.
    """
    filled = _filled(network, count)
    found = layout(network)
    depths, channels = found or (yolov3.DEPTHS, yolov3.CHANNELS)
    classes = next((layer.options["classes"] for layer in network.layers if layer.kind == "yolo"), None)
    wanted = structure(depths, channels, 3 * (5 + int(str(classes))) if classes is not None else None)
    backbone = len(structure(depths, channels, None))
    ends = {
        sum(layer.count > 0 for layer in network.layers[:number]): number for number in (len(network.layers), backbone)
    }
    last = _classifier(network, backbone) if filled == len(yolov3.backbone_layers(depths, channels)) + 1 else None
    for layer in network.layers[: backbone if last else ends.get(filled, backbone)]:
        _compare(network, layer, wanted[layer.number] if layer.number < len(wanted) else None, exact=bool(found))
    convs = [conv for _, _, conv in wanted if conv]
    if last and found:
        return [*convs, last]
    if filled not in (len(yolov3.backbone_layers(depths, channels)), len(convs)) or not found:
        raise PortdetError(
            f"{count} float32 values are the first {filled} convolutions of {network.path.name}: neither the backbone "
            f"(up to layer {backbone - 1}) nor the whole model (up to layer {len(wanted) - 1})",
            fix=f"cut it with 'darknet partial {network.path.name} IN OUT {backbone}', or give the whole file",
        )
    return convs[:filled]


def _classifier(network: Network, backbone: int) -> Conv | None:
    """What follows the backbone in darknet53.cfg: the average, and a convolution to the classes."""
    tail = network.layers[backbone : backbone + 2]
    if [layer.kind for layer in tail] != ["avgpool", "convolutional"]:
        return None
    last = tail[1]
    plain = (last.options["batch_normalize"], last.options["size"], last.options["groups"]) == (0, 1, 1)
    return yolov3.classifier(last.cin, last.cout) if plain else None


def _filled(network: Network, count: int) -> int:
    """Number of convolutions whose values fill the file exactly."""
    total = filled = 0
    for layer in network.layers:
        if total + layer.count > count:
            raise PortdetError(
                f"{count} float32 values fill the layers of {network.path.name} before layer {layer.number}, and "
                f"{count - total} of the {layer.count} values of that layer (line {layer.line()})",
                fix="give the .cfg that the file was written with, or copy the file again if it is truncated",
            )
        total += layer.count
        filled += layer.count > 0
        if layer.count and total == count:
            return filled
    raise PortdetError(
        f"{count} float32 values, all layers of {network.path.name} take {total}: {count - total} left over",
        fix="give the .cfg that the file was written with (its classes= and filters= too)",
    )


def _compare(network: Network, layer: Layer, wanted: Expected | None, exact: bool) -> None:
    """The layer against yolov3.cfg's; `exact` asks for its width too."""
    where = f"layer {layer.number}"
    if wanted is None:
        raise network.error(f"{where}, [{layer.kind}], comes after the end of YOLOv3-DarkNet53", layer.line(), fix=_FIX)
    kind, options, conv = wanted
    if layer.kind != kind:
        raise network.error(f"{where} is [{layer.kind}], YOLOv3-DarkNet53 has [{kind}] there", layer.line(), fix=_FIX)
    for key, value in options.items():
        if layer.options[key] != value and (exact or key != "filters"):
            raise network.error(
                f"{where}, [{kind}], has {key}={said(layer.options[key])}, YOLOv3-DarkNet53 has {said(value)} there",
                layer.line(key),
                fix=_FIX,
            )
    if exact and conv and layer.cin != conv.cin:
        raise network.error(f"{where} takes {layer.cin} channels, not {conv.cin}", layer.line(), fix=_FIX)


@dataclass
class Order:
    """Called with the number of values in a darknet file: its convolutions. `notes` says what they were taken from."""

    find: Callable[[int], list[Conv]]
    notes: list[str]

    def __call__(self, count: int) -> list[Conv]:
        """The convolutions of a file with `count` float32 values."""
        return self.find(count)


def order(
    path: str | Path,
    given: str | Path | None = None,
    depths: Sequence[int] | None = None,
    channels: Sequence[int] | None = None,
) -> Order:
    """The order of the darknet file `path`: of the `.cfg` given, of a model's `depths` and `channels`, of the `.cfg`
    beside the file, or of the published model, whichever is there first."""
    sized = depths is not None or channels is not None
    if given is not None and sized:
        raise PortdetError("a .cfg and a configuration are given, both say the layers", fix="give one of them")
    found = given if given is not None else None if sized else cfg.beside(path)
    if found is None:
        return Order(lambda count: yolov3.layers_for(count, depths or yolov3.DEPTHS, channels or yolov3.CHANNELS), [])
    notes: list[str] = []

    def find(count: int) -> list[Conv]:
        network = cfg.read(found)
        convs = convolutions(network, count)
        notes.extend(_notes(network, convs, "" if given is not None else " (it lies beside the weights)"))
        return convs

    return Order(find, notes)


def _notes(network: Network, convs: Sequence[Conv], why: str) -> Iterator[str]:
    depths, channels = layout(network) or ((), ())
    head = convs[-1]
    if head.name == "classifier":
        classes = f"the backbone and a classifier of {head.cout} classes"
    else:
        classes = "the backbone alone" if head.norm else f"{head.cout // 3 - 5} classes"
    yield (
        f"layers from {network.path}{why}: {len(convs)} convolutions, depths {said(tuple(depths))}, channels "
        f"{said(tuple(channels))}, {classes}, input {network.size[2]}x{network.size[1]}"
    )
    anchors = next((layer.options["anchors"] for layer in network.layers if layer.kind == "yolo"), None)
    if head.name.startswith("backblock") and anchors != tuple(yolov3.ANCHORS):
        yield f"its anchors are not YOLOv3's: set model.anchors to {said(anchors or ())}"
