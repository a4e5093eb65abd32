"""YOLOv3-DarkNet53: the order of darknet's file, and the names that other programs give its tensors.

Canonical names are the spec's paths: `backbone.conv{0..5}`, `backbone.layer{1..5}.{i}.conv{1,2}`,
`backblock{0,1,2}.conv{0..5}` and the transitions `conv1`, `conv2`, each with `.conv.weight` and
`.norm.{weight,bias,running_mean,running_var}`; `backblock{b}.conv6` is plain, with `.weight` and `.bias`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from portdet.errors import PortdetError
from portdet_convert.files.darknet import Conv
from portdet_convert.naming import CLASSIFIER, FRAMEWORKS, MINDSPORE, PADDLE, PADDLE_OPTIMISER, STATE, TORCH
from portdet_convert.rules import Naming, Rule, Skip, suffixes, units
from portdet_convert.ultralytics import MINDYOLO, ULTRALYTICS

DEPTHS = (1, 2, 8, 8, 4)
CHANNELS = (32, 64, 128, 256, 512, 1024)
OUTPUT = "backblock0.conv6.weight"
ANCHORS = (10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 116, 90, 156, 198, 373, 326)


def backbone_layers(depths: Sequence[int] = DEPTHS, channels: Sequence[int] = CHANNELS) -> list[Conv]:
    """Layers 0 to 74 of yolov3.cfg, the content of darknet53.conv.74: 52 convolutions."""
    layers = [Conv("backbone.conv0", 3, channels[0], 3)]
    for stage, depth in enumerate(depths, start=1):
        wide = channels[stage]
        layers.append(Conv(f"backbone.conv{stage}", channels[stage - 1], wide, 3))
        for block in range(depth):
            layers.append(Conv(f"backbone.layer{stage}.{block}.conv1", wide, wide // 2, 1))
            layers.append(Conv(f"backbone.layer{stage}.{block}.conv2", wide // 2, wide, 3))
    return layers


def _head(index: int, cin: int, mid: int, outputs: int) -> Iterator[Conv]:
    for unit in range(6):
        if unit % 2:
            yield Conv(f"backblock{index}.conv{unit}", mid, 2 * mid, 3)
        else:
            yield Conv(f"backblock{index}.conv{unit}", cin if unit == 0 else 2 * mid, mid, 1)
    yield Conv(f"backblock{index}.conv6", 2 * mid, outputs, 1, norm=False)


def darknet_order(
    depths: Sequence[int] = DEPTHS, channels: Sequence[int] = CHANNELS, outputs: int | None = None
) -> list[Conv]:
    """The convolutions in file order; `outputs` = 3 * (5 + classes) of yolov3.weights, None for the backbone alone."""
    layers = backbone_layers(depths, channels)
    if outputs is None:
        return layers
    _, _, c2, c3, c4, c5 = channels
    layers += _head(0, c5, c4, outputs)
    layers.append(Conv("conv1", c4, c4 // 2, 1))
    layers += _head(1, c4 // 2 + c4, c3, outputs)
    layers.append(Conv("conv2", c3, c3 // 2, 1))
    return layers + list(_head(2, c3 // 2 + c3, c2, outputs))


def layers_for(count: int, depths: Sequence[int] = DEPTHS, channels: Sequence[int] = CHANNELS) -> list[Conv]:
    """The convolutions of a darknet file with `count` float32 values: the backbone, or all with any class count, or the
    backbone and its output as ImageNet's classifier.

    Raises `PortdetError` when none of these has that many values.
    """
    layers = backbone_layers(depths, channels)
    backbone = sum(layer.count for layer in layers)
    if count == backbone:
        return layers
    fixed, one = (sum(layer.count for layer in darknet_order(depths, channels, n)) for n in (0, 1))
    outputs, rest = divmod(count - fixed, one - fixed)
    if not rest and outputs >= 18 and not outputs % 3:
        return darknet_order(depths, channels, outputs)
    output = classifier(channels[-1], 1000)
    if count == backbone + output.count:
        return [*layers, output]
    raise PortdetError(
        f"{count} float32 values are neither the backbone ({backbone}), nor that with ImageNet's classifier "
        f"({backbone + output.count}), nor YOLOv3 with some class count ({fixed} + {one - fixed} for each of 3 * (5 + "
        f"classes) outputs), with depths {tuple(depths)} and channels {tuple(channels)}",
        fix="name the configuration of the model (--model), or copy the file again if it is truncated",
    )


def classifier(cin: int, classes: int) -> Conv:
    """The convolution behind the backbone in darknet53.weights, which `DARKNET` skips."""
    return Conv("classifier", cin, classes, 1, norm=False)


def depths_of(names: Collection[str]) -> tuple[int, ...]:
    """Residual blocks of the five stages, from canonical names."""
    depths = [0] * 5
    for name in names:
        if match := re.match(r"backbone\.layer([1-5])\.([0-9]{1,4})\.", name):
            depths[int(match[1]) - 1] = max(depths[int(match[1]) - 1], int(match[2]) + 1)
    return tuple(min(depth, len(names)) for depth in depths)  # each block has names: 9999 alone makes no 10,000 blocks


def expected(names: Collection[str]) -> list[str]:
    """All canonical names, in file order, of the model that has those: the backbone alone if no head is among them."""
    whole = any(name.startswith("backblock") for name in names)
    layers = darknet_order(depths_of(names), outputs=18 if whole else None)
    return [name for layer in layers for name, _ in layer.tensors]


# Layers that the one before in the file does not feed, and those that do: the 5th of a head, joined with a stage.
_FED_BY = {
    "conv1": ("backblock0.conv4",), "backblock1.conv0": ("conv1", "backbone.conv4"),
    "conv2": ("backblock1.conv4",), "backblock2.conv0": ("conv2", "backbone.conv3"),
}  # fmt: skip


def layers_of(shapes: Mapping[str, Sequence[int]]) -> list[Conv]:
    """The convolutions in file order, with the channels that canonical shapes show.

    Raises `PortdetError` naming the first weight that is missing, or does not fit the layer before.
    """
    whole = any(name.startswith("backblock") for name in shapes)
    layers: list[Conv] = []
    couts: dict[str, int] = {}
    for layer in darknet_order(depths_of(shapes), outputs=18 if whole else None):
        weight = f"{layer.name}.conv.weight" if layer.norm else f"{layer.name}.weight"
        if weight not in shapes:
            raise PortdetError(
                f"'{weight}' is missing", fix="darknet's file takes the whole backbone or the whole model"
            )
        shape = tuple(shapes[weight])
        if len(shape) != 4 or shape[2:] != (layer.kernel, layer.kernel):
            raise PortdetError(
                f"tensor '{weight}' is {shape}: its layer has a kernel of {layer.kernel} x {layer.kernel}"
            )
        given = sum(couts[name] for name in _FED_BY.get(layer.name, [layers[-1].name] if layers else ()))
        if layers and shape[1] != given:
            raise PortdetError(f"tensor '{weight}' is {shape}: the layers before give {given} channels")
        couts[layer.name] = shape[0]
        layers.append(Conv(layer.name, shape[1], shape[0], layer.kernel, layer.norm))
    return layers


def wanted(shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape, by the channels that canonical shapes show. Raises `PortdetError` as `layers_of` does."""
    return {name: shape for layer in layers_of(shapes) for name, shape in layer.tensors}


def section(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The `model` section of weights with these shapes. Leaky ReLU, so that every channel reaches the output."""
    width = channels_of(shapes)[-1] / CHANNELS[-1]
    found = {"name": "yolov3", "profile": "darknet", "depths": depths_of(list(shapes)), "width": width}
    if OUTPUT in shapes:
        found["classes"] = shapes[OUTPUT][0] // 3 - 5
    return found


def channels_of(shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
    """Channels of the stem and the five stages, from canonical shapes."""
    return tuple(shapes[f"backbone.conv{stage}.conv.weight"][0] for stage in range(6))


MSMODELS = Naming(
    "mindspore-ai/models",
    (
        *units(
            [("{unit}", "{unit}")],
            [
                ("0.weight", "conv.weight"),
                ("1.gamma", "norm.weight"),
                ("1.beta", "norm.bias"),
                ("1.moving_mean", "norm.running_mean"),
                ("1.moving_variance", "norm.running_var"),
            ],
        ),
        Rule("{block:backblock[0-2]}.conv6.{leaf:weight|bias}", "{block:backblock[0-2]}.conv6.{leaf:weight|bias}"),
    ),
    (
        Skip("moments.{rest}", "optimiser state"),
        *(Skip(name, "state of the training") for name in STATE),
    ),
    ("yolo_network.feature_map.", "feature_map.", "yolo_network."),
    written="feature_map.",
)
"""mindspore-ai/models official/cv/YOLOv3 and LuoJiaNET's Model_Zoo, with and without the training wrapper."""

_BATCH_NORM = [
    ("conv.weight", "conv.weight"),
    ("batch_norm.weight", "norm.weight"),
    ("batch_norm.bias", "norm.bias"),
    ("batch_norm._mean", "norm.running_mean"),
    ("batch_norm._variance", "norm.running_var"),
]


def _ppdet_units() -> list[tuple[str, str]]:
    units = [
        ("backbone.conv0", "backbone.conv0"),
        ("backbone.downsample0.conv_bn_layer", "backbone.conv1"),
        ("neck.yolo_transition.0", "conv1"),
        ("neck.yolo_transition.1", "conv2"),
    ]
    for s in range(5):
        inside = f"backbone.stage.{s}"
        units += [(f"{inside}.basicblock0.conv{k}", f"backbone.layer{s + 1}.0.conv{k}") for k in (1, 2)]
        block = "{i:[0-9]+}.conv{k:[12]}"  # ppdet names the later blocks by the stage once more: stage.2.stage.2.1
        units.append((f"{inside}.stage.{s}.{block}", f"backbone.layer{s + 1}.{block}"))
        if s < 4:
            units.append((f"{inside}.downsample.conv_bn_layer", f"backbone.conv{s + 2}"))
    for b in range(3):
        block = f"neck.yolo_block.{b}"
        units += [(f"{block}.conv_module.conv{k}", f"backblock{b}.conv{k}") for k in range(4)]
        units += [(f"{block}.conv_module.route", f"backblock{b}.conv4"), (f"{block}.tip", f"backblock{b}.conv5")]
    return units


PPDET = Naming(
    "ppdet",
    (
        *units(_ppdet_units(), _BATCH_NORM),
        *(
            Rule(f"yolo_head.yolo_output.{b}.{leaf}", f"backblock{b}.conv6.{leaf}")
            for b in range(3)
            for leaf in ("weight", "bias")
        ),
    ),
    PADDLE_OPTIMISER,
)
"""PaddleDetection's YOLOv3 with the DarkNet backbone."""

DARKNET = Naming("darknet", (Rule("{path}", "{path}"),), (Skip("classifier.{leaf}", "output of a classifier"),))
"""A darknet file has no names: its layers come under canonical ones."""

NAMINGS = (*FRAMEWORKS, MSMODELS, PPDET, MINDYOLO, ULTRALYTICS)
BACKBONES = (suffixes(PPDET, "backbone.", CLASSIFIER),)
PROGRAMS = {"torch": TORCH, "paddle": PADDLE, "mindspore": MINDSPORE, "mindspore-models": MSMODELS, "ppdet": PPDET}
"""Whose names a file can be written in: the generated models', by framework, or those of a published program."""
