"""ResNet-vd (He et al. 2018, Bag of tricks): three 3x3 in the stem, an average before the shortcut's 1x1; with
deformable convolutions (Zhu et al. 2018, DCNv2) in the last stage if asked. As PaddleDetection's `ResNet(variant='d')`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from portdet import ops
from portdet.models.layers import Activation, ConvNorm, DeformConvNorm
from portdet.spec import Module, Sequential

Kind = Literal["bottleneck", "basic"]

Middle = Literal["plain", "deformable", "composed"]
"""The second convolution of a block; composed: deformable without the framework's kernel for it."""

Shortcut = Literal["identity", "conv", "pool"]
"""What a block adds to its branch: its input; a 1x1 convolution of it; the same after a 2x2 average, where the branch
has stride 2."""

_conv = partial(ConvNorm, init="he_normal")


def _second(cin: int, cout: int, stride: int, activation: Activation, middle: Middle) -> Module:
    if middle != "plain":
        return DeformConvNorm(cin, cout, 3, stride, activation, middle == "composed")
    return ConvNorm(cin, cout, 3, stride, activation, init="he_normal")


class Bottleneck(Module):
    """1x1, 3x3 (with the stride), 1x1 to four times the channels, plus the shortcut, ReLU."""

    def __init__(self, cin: int, channels: int, shortcut: Shortcut, middle: Middle) -> None:
        self.shortcut = shortcut
        self.conv1 = _conv(cin, channels, 1, activation="relu")
        self.conv2 = _second(channels, channels, 2 if shortcut == "pool" else 1, "relu", middle)
        self.conv3 = _conv(channels, 4 * channels, 1, activation="none")
        if shortcut != "identity":
            self.short = _conv(cin, 4 * channels, 1, activation="none")

    def forward(self, x: Any) -> Any:
        return _sum(self, self.conv3(self.conv2(self.conv1(x))), x)


class BasicBlock(Module):
    """3x3 (with the stride), 3x3, plus the shortcut, ReLU: the block of ResNet-18."""

    def __init__(self, cin: int, channels: int, shortcut: Shortcut, middle: Middle) -> None:
        self.shortcut = shortcut
        self.conv1 = _conv(cin, channels, 3, 2 if shortcut == "pool" else 1, activation="relu")
        self.conv2 = _second(channels, channels, 1, "none", middle)
        if shortcut != "identity":
            self.short = _conv(cin, channels, 1, activation="none")

    def forward(self, x: Any) -> Any:
        return _sum(self, self.conv2(self.conv1(x)), x)


def _sum(block: Bottleneck | BasicBlock, branch: Any, x: Any) -> Any:
    if block.shortcut == "identity":
        return ops.relu(branch + x)
    if block.shortcut == "pool":
        x = ops.avg_pool2d(x, kernel=2)
    short = block.short(x)
    return ops.relu(branch + short)


class ResNetVd(Module):
    """Stem, pooling, stages res2 to res5 at strides 4 to 32; returns the last `levels` of them, finest first.

    width: channels of the stem, and of the 3x3 in res2; they double from stage to stage. composed: deformable
    convolutions without the framework's kernel.
    """

    def __init__(
        self,
        depths: tuple[int, ...] = (3, 4, 6, 3),
        kind: Kind = "bottleneck",
        width: int = 64,
        deformable: bool = False,
        levels: int = 3,
        composed: bool = False,
    ) -> None:
        self.levels = levels
        self.stem1 = _conv(3, width // 2, 3, 2, activation="relu")
        self.stem2 = _conv(width // 2, width // 2, 3, activation="relu")
        self.stem3 = _conv(width // 2, width, 3, activation="relu")
        make = Bottleneck if kind == "bottleneck" else BasicBlock
        last: Middle = "plain" if not deformable else "composed" if composed else "deformable"
        cin = width
        for stage, (depth, channels) in enumerate(zip(depths, self.channels(kind, width), strict=True)):
            first: Shortcut = "conv" if stage == 0 else "pool"
            middle: Middle = last if stage == 3 else "plain"
            blocks: list[Module] = []
            for number in range(depth):
                blocks.append(make(cin, width * 2**stage, "identity" if number else first, middle))
                cin = channels
            setattr(self, f"res{stage + 2}", Sequential(blocks))

    @staticmethod
    def channels(kind: Kind, width: int) -> tuple[int, int, int, int]:
        """Of the features of res2 to res5."""
        first = width * (4 if kind == "bottleneck" else 1)
        return first, 2 * first, 4 * first, 8 * first

    def forward(self, images: Any) -> tuple[Any, ...]:
        x = ops.max_pool2d(self.stem3(self.stem2(self.stem1(images))), kernel=3, stride=2, padding=1)
        features = []
        for stage in range(2, 6):
            x = self.children[f"res{stage}"](x)
            features.append(x)
        return tuple(features[-self.levels :])
