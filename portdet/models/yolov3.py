"""YOLOv3-DarkNet53 (Redmon and Farhadi 2018), in the three forms that are published.

`mindspore`: mindspore-ai/models `official/cv/YOLOv3` and LuoJiaNET: ReLU backbone, padding at bottom and right,
whole-pixel centres, ImageNet normalisation. `darknet`: pjreddie and AlexeyAB darknet: leaky ReLU, symmetric padding,
images divided by 255. `ppdet`: PaddleDetection: darknet's network on images normalised as ImageNet's, boxes of mixed
images weighed, and the error of width and height itself in place of half its square. A profile is a set of defaults;
every field may be set alone.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from portdet import ops
from portdet.assign.yolov3 import Anchors, box_targets
from portdet.config import Config as RunConfig
from portdet.errors import PortdetError
from portdet.losses.yolov3 import SizeLoss, level_loss, level_predictions
from portdet.models.backbones.darknet import DarkNet
from portdet.models.layers import ConvNorm, Padding, Variance
from portdet.postprocess import multiclass, ppyolo, yolov3
from portdet.postprocess.detections import Detections
from portdet.section import AnchorSides, Depth, Deviation, Mean, Section
from portdet.session import Array
from portdet.spec import Conv2d, Module, method

PROFILES: dict[str, dict[str, Any]] = {
    "mindspore": {
        "activation": "relu",
        "padding": "same",
        "backbone_momentum": 0.9,  # 0.1 in MindSpore's sense: the backbone's statistics follow the last batches
        "round_centres": True,
        "ignore_boxes": "level",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    },
    "darknet": {
        "activation": "leaky_relu",
        "padding": "symmetric",
        "backbone_momentum": 0.1,
        "round_centres": False,
        "ignore_boxes": "all",
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
    },
    "ppdet": {
        "activation": "leaky_relu",
        "padding": "symmetric",
        "backbone_momentum": 0.1,
        "round_centres": False,
        "ignore_boxes": "all",
        "size_loss": "absolute",
        "mixed": True,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    },
}

ANCHORS: Anchors = (
    (10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326),
)  # fmt: skip


class Config(Section):
    """Fields of the model; those left out come from the profile."""

    name: Literal["yolov3"] = "yolov3"
    profile: Literal["mindspore", "darknet", "ppdet"] = "mindspore"
    classes: int = Field(80, ge=1, le=100_000)
    width: float = Field(1.0, gt=0, le=16, description="factor on all channels; 0.125 is the tiny variant")
    depths: tuple[Depth, Depth, Depth, Depth, Depth] = Field(
        (1, 2, 8, 8, 4), description="residual blocks of the five stages"
    )
    anchors: AnchorSides = Field(
        ANCHORS, min_length=9, max_length=9, description="9 (width, height) in input pixels: strides 8, 16, 32, 3 each"
    )
    activation: Literal["relu", "leaky_relu"] = "relu"
    padding: Padding = "same"
    backbone_momentum: float = Field(0.9, gt=0, le=1, description="batch norm: weight of the new value")
    momentum: float = Field(0.1, gt=0, le=1, description="the same for neck and head")
    norm_variance: Variance = Field("biased", description="that normalises in training; unbiased in darknet on CPU")
    round_centres: bool = True
    ignore_threshold: float = Field(
        0.7, ge=0, le=1, description="0.7 in mindspore-ai/models and darknet, 0.1 in LuoJiaNET"
    )
    ignore_boxes: Literal["level", "all"] = Field("level", description="boxes that spare background: of the level, all")
    box_weight: float = Field(
        1.0, gt=0, le=1e6, description="factor on the terms xy and wh; AlexeyAB's iou_normalizer 0.75"
    )
    size_loss: SizeLoss = Field("squared", description="width and height: half the squared error; absolute in ppdet")
    mixed: bool = Field(False, description="boxes weigh what their image does in a mixture: augment.kind=ppyolo")
    label_smooth: Annotated[float, Field(ge=0, lt=1)] | Literal["ppdet"] = Field(
        0.0, description="0.1 where the original's label_smooth is on; ppdet: min(1 / classes, 1 / 40)"
    )
    mean: tuple[Mean, Mean, Mean] = (0.485, 0.456, 0.406)
    std: tuple[Deviation, Deviation, Deviation] = (0.229, 0.224, 0.225)

    @model_validator(mode="before")
    @classmethod
    def _profile(cls, values: Any) -> Any:
        if isinstance(values, dict):
            profile = values.get("profile", "mindspore")
            return {**(PROFILES.get(profile, {}) if type(profile) is str else {}), **values}
        return values

    @property
    def channels(self) -> tuple[int, ...]:
        """Of the stem and the five stages."""
        return tuple(max(2, round(c * self.width / 2) * 2) for c in (32, 64, 128, 256, 512, 1024))


class YoloBlock(Module):
    """Five convolutions to the route, a sixth and a plain 1x1 to the output; returns (route, output)."""

    def __init__(self, cin: int, channels: int, outputs: int, momentum: float, variance: Variance) -> None:
        wide, conv = 2 * channels, partial(ConvNorm, momentum=momentum, variance=variance)
        self.conv0 = conv(cin, channels, 1)
        self.conv1 = conv(channels, wide, 3)
        self.conv2 = conv(wide, channels, 1)
        self.conv3 = conv(channels, wide, 3)
        self.conv4 = conv(wide, channels, 1)
        self.conv5 = conv(channels, wide, 3)
        self.conv6 = Conv2d(wide, outputs, 1, bias=True)

    def forward(self, x: Any) -> tuple[Any, Any]:
        route = self.conv4(self.conv3(self.conv2(self.conv1(self.conv0(x)))))
        output = self.conv6(self.conv5(route))
        return route, output


class YOLOv3(Module):
    """The detector. `loss` and `predict` are its two entries; both go through forward in generated code."""

    def __init__(self, config: Config) -> None:
        c = config.channels
        outputs = 3 * (config.classes + 5)
        self.settings = config
        momentum, variance = config.momentum, config.norm_variance
        conv = partial(ConvNorm, momentum=momentum, variance=variance)
        self.backbone = DarkNet(c, config.depths, config.activation, config.padding, config.backbone_momentum, variance)
        self.backblock0 = YoloBlock(c[5], c[4], outputs, momentum, variance)
        self.conv1 = conv(c[4], c[4] // 2, 1)
        self.backblock1 = YoloBlock(c[4] // 2 + c[4], c[3], outputs, momentum, variance)
        self.conv2 = conv(c[3], c[3] // 2, 1)
        self.backblock2 = YoloBlock(c[3] // 2 + c[3], c[2], outputs, momentum, variance)

    @method
    def heads(self, images: Any) -> tuple[Any, Any, Any]:
        """Raw outputs (B, 3 * (5 + classes), g, g) at strides 32, 16, 8."""
        stride8, stride16, stride32 = self.backbone(images)
        route, big = self.backblock0(stride32)
        up = ops.upsample_nearest(self.conv1(route), factor=2)
        route, medium = self.backblock1(ops.concat([up, stride16], axis=1))
        up = ops.upsample_nearest(self.conv2(route), factor=2)
        _, small = self.backblock2(ops.concat([up, stride8], axis=1))
        return big, medium, small

    def loss(self, images: Any, boxes: Any, labels: Any, valid: Any) -> dict[str, Any]:
        """Boxes (B, T, 4) x1 y1 x2 y2 in pixels, labels (B, T) int32, valid (B, T) bool -> losses over the batch size.

        'loss' is their sum; 'xy', 'wh', 'obj', 'cls' split it by term, 'big', 'medium', 'small' by level.
        """
        return self.summed(images, boxes, labels, valid, None)

    def summed(self, images: Any, boxes: Any, labels: Any, valid: Any, scores: Any) -> dict[str, Any]:
        """The losses, of boxes that weigh `scores` (None: all the same)."""
        s = self.settings
        place, log_size, best = box_targets(boxes, images, s.anchors, s.round_centres)
        levels = []
        for head, first in zip(self.heads(images), (6, 3, 0), strict=True):
            level = level_loss(
                head, images, place, log_size, best, labels, valid,
                first, s.anchors[first : first + 3], s.classes, s.label_smooth,
                s.ignore_threshold, s.ignore_boxes == "all", s.box_weight, s.size_loss,
                *(() if scores is None else (scores,)),
            )  # fmt: skip
            levels.append(level)
        big, medium, small = levels
        terms = big + medium + small
        return {
            "loss": ops.sum(terms, axis=None),
            **{name: terms[i] for i, name in enumerate(("xy", "wh", "obj", "cls"))},
            **{name: ops.sum(level, axis=None) for name, level in zip(("big", "medium", "small"), levels, strict=True)},
        }

    def predict(self, images: Any) -> Any:
        """(B, N, 5 + classes), strides 8, 16, 32 in turn: box (centre, size in shares of the image), objectness,
        class probabilities."""
        s = self.settings
        big, medium, small = self.heads(images)
        parts = []
        for head, first in ((small, 0), (medium, 3), (big, 6)):
            parts.append(level_predictions(head, images, s.anchors[first : first + 3], s.classes))
        return ops.concat(parts, axis=1)


class MixedYOLOv3(YOLOv3):
    """Whose boxes weigh what their image does in a mixture of two."""

    def loss(self, images: Any, boxes: Any, labels: Any, valid: Any, scores: Any) -> dict[str, Any]:  # type: ignore[override]
        """As of `YOLOv3`, with scores (B, T): 1 where no two images are mixed."""
        return self.summed(images, boxes, labels, valid, scores)


def build(config: Config) -> Module:
    """The spec of a configuration."""
    return MixedYOLOv3(config) if config.mixed else YOLOv3(config)


STRIDE = 32
"""Of the coarsest level: sides of the input are its multiples."""

HEAD = ("backblock0.conv6", "backblock1.conv6", "backblock2.conv6")
"""Weights whose shape depends on the number of classes."""


def check(config: RunConfig) -> None:
    """Raise for what `detections` cannot do."""
    if config.eval.nms_kind == "matrix":
        raise PortdetError("eval.nms_kind = 'matrix' is not YOLOv3's", fix="set it to greedy, diou or multiclass")


def detections(predictions: Array, sizes: Array, config: RunConfig) -> list[Detections]:
    """Boxes in the pixels of the original images. predictions: what `YOLOv3.predict` returns; sizes (B, 2): (w, h).

    `eval.nms_kind=multiclass` is PaddleDetection's whole way from here: its image sizes, clipping and MultiClassNMS.
    """
    check(config)
    settings, letterbox = config.eval, config.data.resize == "letterbox"
    if letterbox:
        predictions = yolov3.without_border(predictions, sizes, config.data.imgsz)
    predictions = yolov3.without_background(predictions, settings.objectness)
    if settings.nms_kind == "multiclass":
        seen = sizes if letterbox else ppyolo.truncated(sizes, config.data.imgsz)
        return ppyolo.detections(yolov3.by_class(predictions), seen, multiclass.of(settings))
    return yolov3.detections(
        predictions,
        sizes,
        conf=settings.conf,
        nms_threshold=settings.nms,
        pixel_offset=settings.pixel_offset,
        kind="diou" if settings.nms_kind == "diou" else "greedy",
        limit=settings.max_det,
    )
