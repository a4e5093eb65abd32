"""PP-YOLO: the names that PaddleDetection and miemiedetection give its tensors.

Canonical names are the spec's paths: `backbone.stem{1..3}`, `backbone.res{2..5}.{i}.conv{1..3}` and `.short`;
`neck.block{i}`, `neck.transition{i}` (PP-YOLO), `neck.{fpn,pan}{i}`, `neck.{fpn,pan}_transition{i}` (PP-YOLOv2);
`output{i}`. A deformable convolution's weight lies one level deeper than a plain one's, where both have one name in
the other programs, so each of these has two lists: with res5 deformable, and with none. To write names the first
serves both. PaddleDetection's files of a backbone alone, of ImageNet, leave out `backbone.`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from portdet_convert.naming import (
    CLASSIFIER,
    FRAMEWORKS,
    MINDSPORE,
    OPTIMISER,
    PADDLE,
    PADDLE_OPTIMISER,
    TORCH,
    WRAPPERS,
)
from portdet_convert.rules import Naming, Rule, Skip, suffixes

LETTERS = "abcdef"  # res4 of ResNet-50 has six blocks
STATISTICS = {"ppdet": ("_mean", "_variance"), "miemiedetection": ("running_mean", "running_var")}


def _backbone() -> Iterator[tuple[str, str]]:
    """Units with a norm called `norm`: theirs, ours."""
    for i in (1, 2, 3):
        yield f"backbone.conv1.conv1_{i}", f"backbone.stem{i}"
    for stage in (2, 3, 4, 5):
        for number, letter in enumerate(LETTERS):
            theirs, ours = f"backbone.res{stage}.res{stage}{letter}", f"backbone.res{stage}.{number}"
            for part, branch in enumerate("abc", start=1):
                yield f"{theirs}.branch2{branch}", f"{ours}.conv{part}"
        yield f"backbone.res{stage}.res{stage}a.short{'' if stage == 2 else '.conv'}", f"backbone.res{stage}.0.short"


def _deformable() -> Iterator[Rule]:
    for number, letter in enumerate(LETTERS):
        theirs, ours = f"backbone.res5.res5{letter}.branch2b", f"backbone.res5.{number}.conv2"
        yield Rule(f"{theirs}.conv.weight", f"{ours}.conv.conv.weight")
        for leaf in ("weight", "bias"):
            yield Rule(f"{theirs}.conv_offset.{leaf}", f"{ours}.conv_offset.{leaf}")


def _neck(dot: str) -> Iterator[tuple[str, str]]:
    """Units with a norm called `batch_norm`. `dot` parts a name from its number: '.' or '_'."""
    for unit in ("tip.conv", "tip"):
        yield f"neck.yolo_block{dot}{{i:[0-2]}}.{unit}", f"neck.block{{i:[0-2]}}.{unit}"
    yield f"neck.yolo_block{dot}{{i:[0-2]}}.conv_module.{{unit}}", "neck.block{i:[0-2]}.{unit}"
    yield f"neck.yolo_transition{dot}{{i:[01]}}", "neck.transition{i:[01]}"
    for path in ("fpn", "pan"):
        theirs, ours = f"neck.{path}{dot}{{i:[0-2]}}", f"neck.{path}{{i:[0-2]}}"
        yield f"neck.{path}_transition{dot}{{i:[01]}}", f"neck.{path}_transition{{i:[01]}}"
        for number, name in enumerate(("left", "right", "join"), start=1):
            yield f"{theirs}.conv{number}", f"{ours}.{name}"
        for number in range(6):
            yield f"{theirs}.conv_module.{number // 2}{dot}{number % 2}", f"{ours}.conv{number}"
        yield f"{theirs}.conv_module.spp.conv", f"{ours}.conv3.conv"


def _units(program: str, norm: str, pairs: Iterator[tuple[str, str]]) -> Iterator[Rule]:
    mean, variance = STATISTICS[program]
    leaves = {"weight": "weight", "bias": "bias", mean: "running_mean", variance: "running_var"}
    for theirs, ours in pairs:
        yield Rule(f"{theirs}.conv.weight", f"{ours}.conv.weight")
        for leaf, name in leaves.items():
            yield Rule(f"{theirs}.{norm}.{leaf}", f"{ours}.norm.{name}")


def _naming(program: str, dot: str, *, deformable: bool) -> Naming:
    head = f"yolo_head.yolo_output{dot}{{i:[0-2]}}.{{leaf:weight|bias}}"
    rules = (
        *(_deformable() if deformable else ()),
        *_units(program, "norm", _backbone()),
        *_units(program, "batch_norm", _neck(dot)),
        Rule(head, "output{i:[0-2]}.{leaf:weight|bias}"),
    )
    counter = Skip("{path}.num_batches_tracked", "counter of batch norm, not a weight")
    skips = (*OPTIMISER, *PADDLE_OPTIMISER) if program == "ppdet" else (counter, *OPTIMISER)
    return Naming(f"{program} PP-YOLO", rules, skips, WRAPPERS)


PPDET, PPDET_PLAIN = (_naming("ppdet", ".", deformable=flag) for flag in (True, False))
"""PaddleDetection's PP-YOLO and PP-YOLOv2 with ResNet50-vd-DCN; its PP-YOLO r18vd."""

MIEMIE, MIEMIE_PLAIN = (_naming("miemiedetection", "_", deformable=flag) for flag in (True, False))
"""miemiedetection's."""

_UNDEFORMED = Rule(
    "backbone.res5.{i:[0-9]+}.conv2.conv.weight", "backbone.res5.{i:[0-9]+}.conv2.conv.conv.weight"
)  # a plain backbone, as `portdet convert` writes it, for a model whose res5 is deformable
_BOTH = (PPDET, PPDET_PLAIN, MIEMIE, MIEMIE_PLAIN)
NAMINGS = (*FRAMEWORKS, *_BOTH)
BACKBONES = (
    *(suffixes(naming, "backbone.", CLASSIFIER) for naming in _BOTH),
    *(
        replace(naming, name=f"{naming.name}, undeformed", rules=(_UNDEFORMED, *naming.rules))
        for naming in (TORCH, PADDLE, MINDSPORE)
    ),
)
PROGRAMS = {"torch": TORCH, "paddle": PADDLE, "mindspore": MINDSPORE, "ppdet": PPDET, "miemiedetection": MIEMIE}
"""Whose names a file can be written in: the generated models', by framework, or those of a published program."""

OFFSETS = (".conv_offset.weight", ".conv_offset.bias")
"""How the tensors end that a deformable convolution has besides those of a plain one. They start at zero, so that it
computes the same, and no classifier's backbone has them."""
