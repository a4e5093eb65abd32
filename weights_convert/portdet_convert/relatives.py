"""What a file of a model that is not known looks like, by names that only that model has."""

from __future__ import annotations

import re
from collections.abc import Iterable

# The first that any name of a file matches. Backbones come last: many detectors share one.
_LOOKS = tuple(
    (re.compile(pattern), title)
    for pattern, title in (
        (r"(^|\.)(mask_feat_head\.|solov2_head\.|bbox_head\.(kernel|cate)_convs)", "SOLOv2"),
        (r"(^|\.)transformer\.(en|de)coder\.layers\.\d+\.(self|cross)_attn\.sampling_offsets\.", "Deformable DETR"),
        (r"(^|\.)transformer\.(en|de)coder\.layers\.\d+\.", "DETR"),
        (r"(^|\.)(rpn_head|roi_head|bbox_head\.fc_(cls|reg))\.?", "a two-stage detector (Faster or Mask R-CNN)"),
        (r"^(model\.)*\d+\.(m\.\d+\.)?cv\d\.", "a YOLO of Ultralytics"),
        (r"^(backbone\.)?res5\.res5a\.branch2a\.", "PaddleDetection's ResNet-vd"),
        (r"^(module\.|model\.|backbone\.)*layer4\.0\.conv1\.weight$", "torchvision's ResNet"),
    )
)


def looks_like(names: Iterable[str]) -> str:
    """`SOLOv2`, or '' for names that say nothing."""
    names = list(names)
    return next((title for pattern, title in _LOOKS if any(pattern.search(name) for name in names)), "")
