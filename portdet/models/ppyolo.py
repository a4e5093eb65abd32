"""PP-YOLO (Long et al. 2020) and PP-YOLOv2 (Huang et al. 2021), as PaddleDetection has them.

A variant is a set of defaults; every field may be set alone. `r50vd_dcn` is PP-YOLO itself, `v2` PP-YOLOv2, `r18vd` the
small model, and `nano` a narrow `r50vd_dcn` that runs every op of it on two cores.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from pydantic import Field, model_validator

from portdet import ops
from portdet.assign.ppyolo import box_targets
from portdet.assign.yolov3 import Anchors
from portdet.config import Config as RunConfig
from portdet.errors import PortdetError
from portdet.losses.ppyolo import level_loss, level_predictions, terms
from portdet.models.backbones.resnet_vd import Kind, ResNetVd
from portdet.models.necks.blocks import BLOCK, CoordRange
from portdet.models.necks.ppyolo_fpn import PPYOLOFPN
from portdet.models.necks.ppyolo_pan import PPYOLOPAN
from portdet.postprocess import multiclass, ppyolo
from portdet.postprocess.detections import Detections
from portdet.postprocess.matrix_nms import CONVENTIONS, MatrixNms, matrix_nms
from portdet.section import AnchorSides, Depth, Deviation, Mean, Section
from portdet.session import Array
from portdet.spec import Conv2d, Module, method

ANCHORS: Anchors = (
    (10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326),
)  # fmt: skip
R18_ANCHORS: Anchors = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))

VARIANTS: dict[str, dict[str, Any]] = {
    "r50vd_dcn": {},
    "r18vd": {
        "kind": "basic",
        "depths": (2, 2, 2, 2),
        "deformable": False,
        "neck": "light",
        "neck_width": 256,
        "iou_aware": False,
        "anchors": R18_ANCHORS,
    },
    "v2": {"neck": "pan", "iou_factor": 0.5},
    "nano": {"depths": (2, 2, 2, 2), "width": 16, "neck_width": 64},
}


class Config(Section):
    """Fields of the model; those left out come from the variant."""

    name: Literal["ppyolo"] = "ppyolo"
    variant: Literal["r50vd_dcn", "r18vd", "v2", "nano"] = "r50vd_dcn"
    classes: int = Field(80, ge=1, le=100_000)
    kind: Kind = Field("bottleneck", description="blocks of the backbone: ResNet-50's or ResNet-18's")
    depths: tuple[Depth, Depth, Depth, Depth] = Field((3, 4, 6, 3), description="blocks of res2 to res5")
    width: int = Field(64, ge=2, le=1024, description="channels of the stem and of res2's 3x3; 64 is ResNet's own")
    deformable: bool = Field(True, description="deformable 3x3 in res5")
    composed: bool = Field(
        False, description="deformable: from gather and a plain convolution, for devices that lack the kernel"
    )
    neck: Literal["fpn", "light", "pan"] = Field("fpn", description="of PP-YOLO, of its r18vd, of PP-YOLOv2")
    neck_width: int = Field(
        512, ge=4, le=8192, description="channels of the neck at stride 32; half of it one level up"
    )
    coord_range: CoordRange = Field(
        "legacy", description="CoordConv (fpn): legacy, -1 to 1, of the published weights; ppdet22, -1 to -0.5, >= 2.2"
    )
    drop_block: bool = Field(True, description="drop squares of features in training")
    keep: float = Field(0.9, gt=0, lt=1, description="DropBlock: share that stays")
    iou_aware: bool = Field(True, description="predict the overlap too, in three outputs more a level")
    iou_factor: float = Field(0.4, ge=0, le=1, description="objectness^(1-f) * overlap^f; PP-YOLOv2: 0.5")
    anchors: AnchorSides = Field(
        ANCHORS, description="(width, height) in input pixels, 3 a level, the finest level first"
    )
    scale_x_y: float = Field(1.05, ge=1, le=10, description="how far beyond its cell a centre may lie")
    iou_weight: float = Field(2.5, gt=0, le=1e6, description="factor on the IoU term")
    label_smooth: bool = Field(False, description="by min(1 / classes, 1 / 40)")
    ignore_threshold: float = Field(0.7, ge=0, le=1, description="overlap above which a background cell is spared")
    conf: float = Field(0.01, ge=0, le=1, description="objectness below which a prediction is all zeros")
    mean: tuple[Mean, Mean, Mean] = (0.485, 0.456, 0.406)
    std: tuple[Deviation, Deviation, Deviation] = (0.229, 0.224, 0.225)

    @model_validator(mode="before")
    @classmethod
    def _variant(cls, values: Any) -> Any:
        if isinstance(values, dict):
            variant = values.get("variant", "r50vd_dcn")
            return {**(VARIANTS.get(variant, {}) if type(variant) is str else {}), **values}
        return values

    @model_validator(mode="after")
    def _levels(self) -> Config:
        if len(self.anchors) != 3 * self.levels:
            raise ValueError(f"neck '{self.neck}' needs {3 * self.levels} anchors, {len(self.anchors)} are given")
        return self

    @property
    def levels(self) -> int:
        """Strides 32, 16 and, but for the light neck, 8."""
        return 2 if self.neck == "light" else 3


class PPYOLO(Module):
    """The detector. `loss` and `predict` are its two entries; both go through forward in generated code."""

    def __init__(self, config: Config) -> None:
        c = config
        self.settings, self.levels = c, c.levels
        self.backbone = ResNetVd(c.depths, c.kind, c.width, c.deformable, c.levels, c.composed)
        inputs = ResNetVd.channels(c.kind, c.width)[: -1 - c.levels : -1]
        if c.neck == "pan":
            self.neck: PPYOLOPAN | PPYOLOFPN = PPYOLOPAN(inputs, c.neck_width, c.keep)
        else:
            up = c.neck_width // 2 if c.neck == "fpn" else c.neck_width
            self.neck = PPYOLOFPN(inputs, c.neck_width, up, c.coord_range, c.neck == "light", c.keep)
        outputs = 3 * (c.classes + (6 if c.iou_aware else 5))
        for level in range(c.levels):
            cin = 2 * c.neck_width // 2**level
            setattr(self, f"output{level}", Conv2d(cin, outputs, 1, bias=True, init="he_normal"))

    def noise_shape(self, side: int) -> tuple[int, ...]:
        """Of DropBlock's noise for one image of that side; () without DropBlock."""
        if not self.settings.drop_block:
            return ()
        grid = side // 32
        if grid < BLOCK:
            raise PortdetError(
                f"DropBlock drops squares of {BLOCK} cells from grids of {grid}: images of {side} px are too small",
                fix=f"train on {32 * BLOCK} px or more, or set model.drop_block=false",
            )
        return self.neck.noise.channels, grid, grid

    @method
    def heads(self, images: Any, noise: Any = None) -> tuple[Any, ...]:
        """Raw outputs (B, D, g, g) at strides 32, 16 and 8, the finest if there is one."""
        if self.levels == 3:
            stride8, stride16, stride32 = self.backbone(images)
            features = self.neck(stride32, stride16, stride8, noise)
        else:
            stride16, stride32 = self.backbone(images)
            features = self.neck(stride32, stride16, None, noise)
        return tuple(self.children[f"output{level}"](feature) for level, feature in enumerate(features))

    def loss(self, images: Any, boxes: Any, labels: Any, valid: Any, scores: Any, noise: Any = None) -> dict[str, Any]:
        """Boxes (B, T, 4) x1 y1 x2 y2 in pixels, labels (B, T) int32, valid (B, T) bool, scores (B, T), noise (B, K, g,
        g) uniform -> losses over the batch size. 'loss' is the sum of the others."""
        s = self.settings
        place, log_size, best, taken = box_targets(boxes, images, valid, scores, s.anchors)
        total: Any = None
        heads = self.heads(images, noise)
        for level, head in enumerate(heads):
            first = 3 * (self.levels - 1 - level)
            part = level_loss(
                head, images, place, log_size, best, labels, valid, taken, scores,
                first, s.anchors[first : first + 3], s.classes, s.scale_x_y,
                s.iou_weight, s.iou_aware, s.label_smooth, s.ignore_threshold,
            )  # fmt: skip
            total = part if total is None else total + part
        named = {name: total[i] for i, name in enumerate(terms(s.iou_aware))}
        return {"loss": ops.sum(total, axis=None), **named}

    def predict(self, images: Any) -> Any:
        """(B, N, 4 + classes), strides 32, 16, 8 in turn: corners in shares of the image, scores of the classes."""
        s = self.settings
        found = []
        heads = self.heads(images)
        for level, head in enumerate(heads):
            first = 3 * (self.levels - 1 - level)
            rows = level_predictions(
                head, images, s.anchors[first : first + 3], s.classes, s.scale_x_y, s.iou_aware, s.iou_factor, s.conf
            )
            found.append(rows)
        return ops.concat(found, axis=1)


def build(config: Config) -> Module:
    """The spec of a configuration."""
    return PPYOLO(config)


STRIDE = 32
"""Of the coarsest level: sides of the input are its multiples."""

HEAD = ("output0", "output1", "output2")
"""Weights whose shape depends on the number of classes."""

STAGES = (
    ("backbone.stem1", "backbone.stem2", "backbone.stem3", "backbone.res2"),
    *((f"backbone.res{number}",) for number in (3, 4, 5)),
)
"""What freeze_at = 0, 1, 2, 3 freezes, and all before it: as `ResNet` of PaddleDetection, and miemiedetection's. (The
latter's `resnet_vb` counts the stem as 1 and res2 as 2: its freeze_at is ours plus 2.)"""


def check(config: RunConfig) -> None:
    """Raise for what `detections` cannot do."""
    if config.data.resize == "letterbox":
        raise PortdetError(f"data.resize = '{config.data.resize}' is not PP-YOLO's", fix="set it to stretch_cubic")
    if (kind := config.eval.nms_kind) not in ("matrix", "multiclass"):
        raise PortdetError(f"eval.nms_kind = '{kind}' is not PP-YOLO's", fix="set it to matrix or multiclass")


def detections(predictions: Array, sizes: Array, config: RunConfig) -> list[Detections]:
    """Boxes in the pixels of the original images. predictions: what `PPYOLO.predict` returns; sizes (B, 2): (w, h)."""
    check(config)
    settings = config.eval
    if settings.nms_kind == "matrix":
        shared = {"score_threshold": settings.conf, "post_threshold": settings.conf, "keep": settings.max_det}
        options = MatrixNms(**{**shared, **CONVENTIONS[settings.matrix]})
        suppress = partial(matrix_nms, options=options)
        if settings.matrix == "miemiedetection":
            return ppyolo.detections(predictions, sizes, suppress, last=0.0)
        return ppyolo.detections(predictions, ppyolo.truncated(sizes, config.data.imgsz), suppress)
    return ppyolo.detections(predictions, ppyolo.truncated(sizes, config.data.imgsz), multiclass.of(settings))
