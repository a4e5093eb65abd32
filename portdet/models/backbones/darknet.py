"""DarkNet-53 (Redmon and Farhadi 2018, YOLOv3; cfg/darknet53.cfg and yolov3.cfg layers 0-74)."""

from __future__ import annotations

from functools import partial
from typing import Any

from portdet.models.layers import Activation, ConvNorm, Padding, Variance
from portdet.spec import Module, Sequential


class Residual(Module):
    """1x1 to half the channels, 3x3 back, plus the input; no activation after the sum."""

    def __init__(self, channels: int, activation: Activation, momentum: float, variance: Variance = "biased") -> None:
        conv = partial(ConvNorm, activation=activation, momentum=momentum, variance=variance)
        self.conv1 = conv(channels, channels // 2, 1)
        self.conv2 = conv(channels // 2, channels, 3)

    def forward(self, x: Any) -> Any:
        return self.conv2(self.conv1(x)) + x


class DarkNet(Module):
    """Five stages, each a stride-2 convolution and residual blocks; returns strides 8, 16, 32.

    channels: of the stem and the five stages; depths: residual blocks of each stage.
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (32, 64, 128, 256, 512, 1024),
        depths: tuple[int, ...] = (1, 2, 8, 8, 4),
        activation: Activation = "leaky_relu",
        padding: Padding = "symmetric",
        momentum: float = 0.1,
        variance: Variance = "biased",
    ) -> None:
        self.conv0 = ConvNorm(3, channels[0], 3, 1, activation, padding, momentum, variance)
        for stage, depth in enumerate(depths, start=1):
            down = ConvNorm(channels[stage - 1], channels[stage], 3, 2, activation, padding, momentum, variance)
            setattr(self, f"conv{stage}", down)
            blocks: list[Module] = [Residual(channels[stage], activation, momentum, variance) for _ in range(depth)]
            setattr(self, f"layer{stage}", Sequential(blocks))

    def forward(self, images: Any) -> tuple[Any, Any, Any]:
        stages = self.children
        x = stages["conv0"](images)
        x = stages["layer1"](stages["conv1"](x))
        x = stages["layer2"](stages["conv2"](x))
        stride8 = stages["layer3"](stages["conv3"](x))
        stride16 = stages["layer4"](stages["conv4"](stride8))
        stride32 = stages["layer5"](stages["conv5"](stride16))
        return stride8, stride16, stride32
