"""The sections of the configuration, key by key: type, bounds, default, and what it does."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from portdet.section import Epoch, Name, PathText, Scale, Section, Side, Word


class DataConfig(Section):
    """What to train and validate on, and how batches are made."""

    format: Literal["scenes", "coco", "voc"] = Field("scenes", description="drawn scenes, COCO JSON or Pascal VOC")
    root: PathText = Field("", description="folder that the paths below start from")
    train: PathText = Field("", description="COCO: annotation file; VOC: image-set list (ImageSets/Main/train.txt)")
    val: PathText = Field("", description="as train, for validation")
    train_images: PathText = Field("", description="COCO: image folder of the training set")
    val_images: PathText = Field("", description="COCO: image folder of the validation set")
    names: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default_factory=list, description="class names; empty: taken from the annotations"
    )
    train_count: int = Field(256, ge=1, le=10_000_000, description="scenes: how many training images are drawn")
    val_count: int = Field(64, ge=1, le=10_000_000, description="scenes: how many validation images are drawn")
    scene_size: Side = Field(128, description="scenes: side of the drawn images in pixels")
    fraction: float = Field(1.0, gt=0, le=1, description="share of the training images that is used")
    imgsz: Side = Field(416, description="side of the network input in validation, and in training unless sizes is set")
    resize: Literal["stretch", "stretch_cubic", "letterbox"] = Field(
        "stretch",
        description="how unaugmented images become square. stretch: bicubic to enlarge, nearest to shrink, or bilinear "
        "(mindspore-ai/models); stretch_cubic: OpenCV's bicubic (PaddleDetection); letterbox keeps the aspect ratio, "
        "as darknet",
    )
    sizes: list[Side] = Field(default_factory=list, description="multi-scale training sizes; empty: imgsz alone")
    resize_rate: int = Field(1, ge=1, le=1_000_000, description="multi-scale: batches that share one size")
    batch: int = Field(8, ge=1, le=65_536, description="images per step (global: over all processes)")
    val_batch: int = Field(8, ge=1, le=65_536, description="images per validation step")
    workers: int = Field(1, ge=0, le=1024, description="worker processes that prepare batches; 0: in the main process")
    max_boxes: int = Field(
        50, ge=1, le=10_000, description="boxes per image that targets are padded to; more is an error"
    )
    too_many_boxes: Literal["error", "drop"] = Field(
        "error", description="more boxes than max_boxes: stop with the image's name, or drop (counted) as LuoJiaNET"
    )
    keep_crowd: bool = Field(False, description="keep boxes marked as crowd in training (LuoJiaNET does)")
    bad_box: Literal["clip", "error"] = Field(
        "clip", description="a box outside its image or without area: clip or drop it and count it, or stop"
    )
    bad_image: Literal["error", "skip"] = Field("error", description="an unreadable image: stop, or skip and count it")


AugmentKind = Literal["yolov3", "ppyolo"]


class AugmentConfig(Section):
    """Training augmentation as the original of a detector has it. A key of the other kind is an error."""

    KEYS: ClassVar[dict[AugmentKind, tuple[str, ...]]] = {
        "yolov3": ("jitter", "scale", "hue", "saturation", "value", "trials"),
        "ppyolo": ("mixup_epochs", "mixup_beta", "distort", "expand", "expand_ratio", "crop_tries"),
    }

    kind: AugmentKind = Field(
        "yolov3", description="yolov3: mindspore-ai/models' transforms.py; ppyolo: PaddleDetection 2.4's PP-YOLO reader"
    )
    enabled: bool = Field(True, description="off: the image is only resized, as in validation")
    close_last: Epoch = Field(0, description="epochs at the end without augmentation (close_mosaic)")
    flip: float = Field(0.5, ge=0, le=1, description="probability of a horizontal flip")
    random_interpolation: bool = Field(
        True, description="draw the interpolation, yolov3: per image; ppyolo: per batch; off: bilinear"
    )
    jitter: float = Field(0.3, ge=0, lt=1, description="yolov3: aspect ratio is drawn from (1-j)/(1+j) to (1+j)/(1-j)")
    scale: tuple[Scale, Scale] = Field((0.25, 2.0), description="yolov3: range of the size, relative to the input")
    hue: float = Field(0.1, ge=0, le=1, description="yolov3: largest shift of the hue, as a share of the circle")
    saturation: float = Field(
        1.5, ge=1, le=100, description="yolov3: largest factor of the saturation (and its inverse)"
    )
    value: float = Field(1.0, ge=1, le=100, description="yolov3: largest factor of the brightness (and its inverse)")
    trials: int = Field(
        10, ge=1, le=1000, description="yolov3: placements that are drawn before the image is left as it is"
    )
    mixup_epochs: int = Field(
        25000,
        ge=0,
        le=1_000_000,
        description="ppyolo: first epochs in which two images are mixed (mixup_epoch there); 0: none",
    )
    mixup_beta: float = Field(
        1.5, gt=0, le=1000, description="ppyolo: both parameters of the mixture's Beta distribution"
    )
    distort: float = Field(
        0.5, ge=0, le=1, description="ppyolo: probability of each change of brightness, contrast, saturation, hue"
    )
    expand: float = Field(0.5, ge=0, le=1, description="ppyolo: probability that the image gets a larger canvas")
    expand_ratio: float = Field(4.0, ge=1, le=16, description="ppyolo: largest canvas, relative to the image's sides")
    crop_tries: int = Field(
        50, ge=0, le=1000, description="ppyolo: windows that are drawn for each IoU threshold; 0: no crop"
    )

    @property
    def mixes(self) -> bool:
        """Whether two images are ever mixed into one."""
        return self.enabled and self.kind == "ppyolo" and self.mixup_epochs > 0

    @model_validator(mode="after")
    def _one_kind(self) -> AugmentConfig:
        for kind, keys in self.KEYS.items():
            for key in keys if kind != self.kind else ():
                if key in self.model_fields_set:
                    raise ValueError(f"'{key}' is a key of augment.kind={kind}, and the kind is {self.kind}")
        return self

    @model_serializer(mode="wrap")
    def _own_keys(self, values: SerializerFunctionWrapHandler) -> dict[str, Any]:
        others = {key for kind, keys in self.KEYS.items() if kind != self.kind for key in keys}
        return {key: value for key, value in values(self).items() if key not in others}


Warmup = Literal["mindspore", "ppdet"]


class OptimConfig(Section):
    """Momentum SGD, its decay groups, and the learning-rate schedule, as closed forms of the step."""

    lr0: float = Field(0.01, gt=0, le=1e6, description="base learning rate")
    lr_batch: int = Field(
        0,
        ge=0,
        le=65_536,
        description="global batch that lr0 is meant for: lr0 * data.batch / lr_batch is used; 0: lr0 as it is",
    )
    schedule: Literal["constant", "exponential", "cosine_annealing"] = Field(
        "cosine_annealing", description="'exponential' is multi-step decay, the name mindspore-ai/models gives it"
    )
    lr_epochs: list[Epoch] = Field(default_factory=lambda: [220, 250], description="exponential: milestones in epochs")
    lr_gamma: float = Field(0.1, gt=0, le=1000, description="exponential: factor at each milestone")
    eta_min: float = Field(0.0, ge=0, le=1e6, description="cosine_annealing: lowest learning rate")
    t_max: Epoch = Field(0, description="cosine_annealing: half period in epochs; 0: all epochs")
    warmup_epochs: float = Field(0.0, ge=0, le=1e6, description="epochs of linear warm-up")
    warmup_steps: int = Field(0, ge=0, le=10**9, description="steps of linear warm-up, in place of warmup_epochs")
    warmup: Warmup = Field(
        "mindspore",
        description="mindspore-ai/models: from base / steps on, a milestone inside is skipped; "
        "ppdet: from 0 on, such a milestone counts when warm-up is over",
    )
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(
        5e-4, ge=0, le=1e6, description="L2, on kernels and on the bias of deformable offsets alone"
    )
    nesterov: bool = False
    loss_scale: Annotated[float, Field(gt=0, le=2.0**64)] | Literal["dynamic"] = Field(
        1.0, description="static factor, or 'dynamic'"
    )
    clip_norm: float = Field(
        0.0, ge=0, le=1e12, description="largest norm of the gradients, before decay; 0: no clipping"
    )
    clip: Literal["global", "group"] = Field(
        "global", description="norm of all gradients (PaddleDetection), or of each decay group (miemiedetection)"
    )
    freeze: list[str] = Field(default_factory=list, description="prefixes of weights that are not trained")
    freeze_at: int = Field(
        -1,
        ge=-1,
        le=100,
        description="PaddleDetection's: 0 freezes the stem and res2, 3 up to res5; norms' statistics go on",
    )


EmaKind = Literal["none", "constant", "exponential", "threshold", "threshold_exact"]


class EmaConfig(Section):
    """Which exponential moving average of the weights is kept, if any."""

    kind: EmaKind = Field(
        "none",
        description="exponential: YOLOv5/YOLOX/MindYOLO; threshold: PaddleDetection 2.4; threshold_exact: without its "
        "too large weights; constant: Keras, mmengine",
    )
    decay: float = Field(0.9998, ge=0, lt=1)
    tau: float = Field(2000.0, gt=0, le=1e12, description="exponential: steps of the ramp d(1-exp(-t/tau))")


class EvalConfig(Section):
    """How predictions become boxes, and how often they are scored."""

    conf: float = Field(0.001, ge=0, le=1, description="smallest score that is kept")
    nms: float = Field(0.5, gt=0, le=1, description="IoU above which the lower box is suppressed")
    nms_kind: Literal["greedy", "diou", "matrix", "multiclass"] = Field(
        "greedy",
        description="YOLOv3: greedy (mindspore-ai/models, darknet), diou: distance IoU, LuoJiaNET's inference; "
        "PP-YOLO: matrix, decay of scores; both: multiclass, PaddleDetection's MultiClassNMS",
    )
    top_k: int = Field(
        1000, ge=0, le=10_000_000, description="multiclass: best scores of a class that NMS looks at; 0: all"
    )
    objectness: float = Field(
        0.0,
        ge=0,
        le=1,
        description="YOLOv3: below it a prediction counts for nothing (Paddle's conf_thresh)",
    )
    matrix: Literal["ppdet", "miemiedetection"] = Field(
        "ppdet",
        description="matrix NMS: ppdet ranks by class, rounds the image's size and ends boxes at its last pixel; "
        "miemiedetection ranks by image and ends them at the edge",
    )
    pixel_offset: float = Field(1.0, ge=0, le=1, description="NMS: 1 counts both edge pixels of a box, 0 as darknet")
    max_det: int = Field(
        100,
        ge=1,
        le=100_000,
        description="boxes per image and class that COCO's metric looks at; matrix and "
        "multiclass keep as many per image",
    )
    evaluator: Literal["pycocotools", "hotcoco"] = Field("pycocotools", description="hotcoco: same bits, faster")
    every: int = Field(1, ge=1, le=1_000_000, description="epochs between validations")
    start: int = Field(1, ge=1, le=1_000_000, description="first epoch that is validated")
    save_json: bool = Field(False, description="keep the detections in COCO's JSON format")


class TrainConfig(Section):
    """The run: how long, where, with which backend."""

    epochs: int = Field(320, ge=1, le=1_000_000)
    max_steps: int = Field(0, ge=0, le=10**9, description="stop after this many steps (a dry run); 0: no limit")
    seed: int = Field(0, ge=0, lt=2**63)
    backend: Literal["torch", "mindspore", "paddle"] | Word = Field(
        "torch", description="torch, mindspore, paddle or another installed backend"
    )
    device: Word = Field(
        "cpu", description="cpu, cuda, cuda:1, npu, npu:0 (Ascend); absent: an error, never a fallback"
    )
    devices: int = Field(
        1, ge=1, le=4096, description="processes, each with a device, that share every batch (data parallel)"
    )
    sync_bn: bool = Field(True, description="with devices: batch norm's statistics are of the whole batch")
    mode: Literal["default", "eager", "compiled"] = Field(
        "default",
        description="compiled: torch.compile, ms.jit graph mode, paddle.jit.to_static; "
        "default: what most train with, graph mode on MindSpore, eager on PyTorch and Paddle",
    )
    threads: int = Field(0, ge=0, le=4096, description="threads of the framework; 0: all cores")
    pretrained: PathText = Field("", description="weights to start from, any format that `convert` reads")
    patience: int = Field(
        0, ge=0, le=1_000_000, description="stop after this many validations without a better AP; 0: never"
    )
    save_period: int = Field(
        0, ge=0, le=1_000_000, description="keep a checkpoint every so many epochs besides best and last"
    )
    log_every: int = Field(10, ge=1, le=10**9, description="steps between two printed lines; steps.csv has all of them")
    project: PathText = Field("runs", description="folder of all runs")
    name: Name = Field("", description="name of the run; empty: the configuration's")
    exist_ok: bool = Field(
        False, description="use the folder of that name again, not the next number; an earlier run in it is set aside"
    )
