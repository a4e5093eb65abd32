"""PaddleDetection's PPYOLOFPN: the neck of PP-YOLO (Long et al. 2020) and, without its blocks, of PP-YOLO r18vd."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from portdet import ops
from portdet.models.layers import ConvNorm
from portdet.models.necks.blocks import SPP, CoordConv, CoordRange, NoiseSplit, drop_block
from portdet.spec import Module

_conv = partial(ConvNorm, init="he_normal")


Place = Literal["coarsest", "finer"]


class DetectionBlock(Module):
    """Four convolutions (pyramid pooling between them, at the coarsest level), route, tip; returns (route, tip).

    DropBlock is before the route at the coarsest level, after the second convolution elsewhere.
    """

    def __init__(self, cin: int, channels: int, coord_range: CoordRange, place: Place, keep: float) -> None:
        self.place, self.keep = place, keep
        self.conv0 = CoordConv(cin, channels, 1, coord_range)
        self.conv1 = _conv(channels, 2 * channels, 3)
        self.conv2 = CoordConv(2 * channels, channels, 1, coord_range)
        if place == "coarsest":
            self.spp = SPP(channels, "leaky_relu")
        self.conv3 = _conv(channels, 2 * channels, 3)
        self.route = CoordConv(2 * channels, channels, 1, coord_range)
        self.tip = CoordConv(channels, 2 * channels, 3, coord_range)

    def forward(self, x: Any, noise: Any = None) -> tuple[Any, Any]:
        x = self.conv1(self.conv0(x))
        if self.place == "coarsest":
            x = self.conv3(self.spp(self.conv2(x)))
            x = x if noise is None else drop_block(x, noise, self.keep)
        else:
            x = x if noise is None else drop_block(x, noise, self.keep)
            x = self.conv3(self.conv2(x))
        route = self.route(x)
        return route, self.tip(route)


class LightBlock(Module):
    """DropBlock, route, tip: what PP-YOLO r18vd has for a detection block; returns (route, tip)."""

    def __init__(self, cin: int, channels: int, keep: float) -> None:
        self.keep = keep
        self.route = _conv(cin, channels, 1)
        self.tip = _conv(channels, 2 * channels, 3)

    def forward(self, x: Any, noise: Any = None) -> tuple[Any, Any]:
        route = self.route(x if noise is None else drop_block(x, noise, self.keep))
        return route, self.tip(route)


class PPYOLOFPN(Module):
    """Features (`inputs`: their channels, stride 32 first; two or three) -> tips of 2c channels in the same order.

    c is `width` at the coarsest level and halves from level to level; what goes up has `transition` channels, halved
    likewise. `light`: PP-YOLO r18vd, whose blocks see no coordinates.
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        width: int = 512,
        transition: int = 256,
        coord_range: CoordRange = "legacy",
        light: bool = False,
        keep: float = 0.9,
    ) -> None:
        self.levels = levels = len(inputs)
        self.noise = NoiseSplit()
        self.parts: list[slice] = []
        for level, features in enumerate(inputs):
            channels, stride = width // 2**level, 32 // 2**level
            cin = features + (transition // 2 ** (level - 1) if level else 0)
            if light:
                block: Module = LightBlock(cin, channels, keep)
            else:
                block = DetectionBlock(cin, channels, coord_range, "finer" if level else "coarsest", keep)
            self.parts.append(self.noise.take(cin if light else 2 * channels, stride))
            setattr(self, f"block{level}", block)
            if level < levels - 1:
                setattr(self, f"transition{level}", _conv(channels, transition // 2**level, 1))

    def forward(self, stride32: Any, stride16: Any, stride8: Any = None, noise: Any = None) -> tuple[Any, ...]:
        tips = []
        x = stride32
        for level, finer in enumerate((stride16, stride8, None)[: self.levels]):
            part = () if noise is None else (noise[:, self.parts[level]],)
            route, tip = self.children[f"block{level}"](x, *part)
            tips.append(tip)
            if finer is not None:
                up = ops.upsample_nearest(self.children[f"transition{level}"](route), factor=2)
                x = ops.concat([up, finer], axis=1)
        return tuple(tips)
