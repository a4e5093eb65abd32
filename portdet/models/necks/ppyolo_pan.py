"""PaddleDetection's PPYOLOPAN: the neck of PP-YOLOv2 (Huang et al. 2021), cross-stage blocks up and down, with mish."""

from __future__ import annotations

from functools import partial
from typing import Any

from portdet import ops
from portdet.models.layers import ConvNorm
from portdet.models.necks.blocks import SPP, NoiseSplit, drop_block
from portdet.spec import Module

_conv = partial(ConvNorm, activation="mish", init="he_normal")


class CrossStageBlock(Module):
    """A left branch of three pairs 1x1, 3x3 and a right branch of one 1x1, joined: 2c channels.

    pyramid: pyramid pooling in place of the second 3x3. DropBlock follows the second pair.
    """

    def __init__(self, cin: int, channels: int, pyramid: bool = False, keep: float = 0.9) -> None:
        self.keep = keep
        self.left = _conv(cin, channels, 1)
        self.right = _conv(cin, channels, 1)
        self.join = _conv(2 * channels, 2 * channels, 1)
        self.conv0, self.conv1 = _conv(channels, channels, 1), _conv(channels, channels, 3)
        self.conv2 = _conv(channels, channels, 1)
        self.conv3: Module = SPP(channels, "mish") if pyramid else _conv(channels, channels, 3)
        self.conv4, self.conv5 = _conv(channels, channels, 1), _conv(channels, channels, 3)

    def forward(self, x: Any, noise: Any = None) -> Any:
        right = self.right(x)
        x = self.conv3(self.conv2(self.conv1(self.conv0(self.left(x)))))
        x = x if noise is None else drop_block(x, noise, self.keep)
        return self.join(ops.concat([self.conv5(self.conv4(x)), right], axis=1))


class PPYOLOPAN(Module):
    """Features (`inputs`: their channels, strides 32, 16, 8) -> 2c channels each, in the same order.

    c is `width` at the coarsest level and halves from level to level. Down again, a 3x3 of stride 2 keeps its channels.
    """

    def __init__(self, inputs: tuple[int, ...], width: int = 512, keep: float = 0.9) -> None:
        coarse, medium, fine = width, width // 2, width // 4
        block = partial(CrossStageBlock, keep=keep)
        self.fpn0 = block(inputs[0], coarse, pyramid=True)
        self.fpn_transition0 = _conv(2 * coarse, coarse, 1)
        self.fpn1 = block(coarse + inputs[1], medium)
        self.fpn_transition1 = _conv(2 * medium, medium, 1)
        self.fpn2 = block(medium + inputs[2], fine)
        self.pan_transition1 = _conv(2 * fine, 2 * fine, 3, 2)
        self.pan1 = block(2 * fine + 2 * medium, medium)
        self.pan_transition0 = _conv(2 * medium, 2 * medium, 3, 2)
        self.pan0 = block(2 * medium + 2 * coarse, coarse)
        self.noise = NoiseSplit()
        parts = [
            ("fpn0", coarse, 32),
            ("fpn1", medium, 16),
            ("fpn2", fine, 8),
            ("pan1", medium, 16),
            ("pan0", coarse, 32),
        ]
        self.parts = {name: self.noise.take(channels, stride) for name, channels, stride in parts}

    def forward(self, stride32: Any, stride16: Any, stride8: Any, noise: Any = None) -> tuple[Any, Any, Any]:
        def run(name: str, x: Any) -> Any:
            return self.children[name](x) if noise is None else self.children[name](x, noise[:, self.parts[name]])

        up32 = run("fpn0", stride32)
        route = ops.upsample_nearest(self.fpn_transition0(up32), factor=2)
        up16 = run("fpn1", ops.concat([route, stride16], axis=1))
        route = ops.upsample_nearest(self.fpn_transition1(up16), factor=2)
        up8 = run("fpn2", ops.concat([route, stride8], axis=1))
        route = self.pan_transition1(up8)
        down16 = run("pan1", ops.concat([route, up16], axis=1))
        route = self.pan_transition0(down16)
        down32 = run("pan0", ops.concat([route, up32], axis=1))
        return down32, down16, up8
