"""Makes `ppyolo.json` and `ppyolo.npz` with PaddleDetection itself: PP-YOLO r18vd and PP-YOLOv2.

    PORTDET_PPDET=folder python -m tests.convert.make_ppyolo_fixture

The folder holds PaddleDetection's `ppdet` and `configs` (develop, 666f597; Apache-2.0); nothing of it is in this
repository. Both models are built from their published configurations and filled by the formula of `ppyolo_case.value`;
kept are their tensors' names and shapes, and what they compute on two images of 96 px with Paddle 3.3.1 on CPU: the
heads' outputs, and the losses in training with DropBlock off.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from portdet.session import Arrays
from tests import absent
from tests.convert.ppyolo_case import CONFIGS, NAMES, OUTPUTS, SIDE, boxes, images, kept, value


def build(folder: Path, config: str) -> Any:
    """ppdet's model, with batch norm for SyncBN, as it has it itself on one device."""
    from ppdet.core.workspace import create, load_config  # type: ignore[import-not-found]

    settings = load_config(str(folder / "configs/ppyolo" / config))
    settings["norm_type"] = "bn"
    settings[settings.YOLOv3["neck"]]["drop_block"] = False
    return create(settings.architecture)


def losses(model: Any) -> Arrays:
    """The terms of the loss in training mode, targets by ppdet's own transforms."""
    from ppdet.data.transform.batch_operators import Gt2YoloTarget  # type: ignore[import-not-found]

    pixels, labels, scores = boxes()
    low, high = pixels[..., :2] / SIDE, pixels[..., 2:] / SIDE
    shares = np.concatenate([low + (high - low) / 2, high - low], axis=2)
    samples = [
        {"image": image, "gt_bbox": box, "gt_class": label, "gt_score": score[:, None]}
        for image, box, label, score in zip(images(), shares, labels, scores, strict=True)
    ]
    anchors = [list(anchor) for level in reversed(model.yolo_head.anchors) for anchor in level]
    levels = len(anchors) // 3
    masks = [list(range(3 * level, 3 * level + 3)) for level in reversed(range(levels))]
    make = Gt2YoloTarget(anchors, masks, [32, 16, 8][:levels], num_classes=80)
    made = make(samples)
    names = ["image", "gt_bbox", *(f"target{level}" for level in range(levels))]
    batch = {name: paddle.to_tensor(np.stack([s[name] for s in made]).astype(np.float32)) for name in names}
    model.train()
    return {name: np.array(float(term)) for name, term in model(batch).items()}


def main() -> None:
    folder = Path(os.environ["PORTDET_PPDET"])
    sys.path.insert(0, str(folder))
    sys.meta_path.append(absent.Finder())
    names: dict[str, Any] = {"program": "PaddleDetection 666f597", "paddle": paddle.__version__}
    outputs: Arrays = {}
    for variant, config in CONFIGS.items():
        model = build(folder, config)
        state = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        model.set_state_dict({name: value(name, shape) for name, shape in state.items()})
        model.eval()
        features = model.neck(model.backbone({"image": paddle.to_tensor(images())}))
        heads = [output.numpy() for output in model.yolo_head(features)]
        print(variant, len(state), [(float(head.std()), float(abs(head).max())) for head in heads])
        names[variant] = {name: list(shape) for name, shape in state.items()}
        outputs |= {f"{variant}/{name}": array for name, array in (kept(heads) | losses(model)).items()}
    NAMES.write_text(json.dumps(names, indent=0) + "\n", encoding="utf-8")
    np.savez_compressed(OUTPUTS, **outputs)


if __name__ == "__main__":
    main()
