"""PaddleDetection's PP-YOLO, seen by the library's hooks.

    PORTDET_PPDET=folder python -m tests.align.peers.ppdet_child OUT VARIANT EDITS SEED...

Writes OUT/SEED.safetensors, sketches of every tensor of a step. EDITS: 'none', or what to do as miemiedetection does,
joined by '+': 'coordinates', those of CoordConv up to release 2.1, and 'clip', no clipping of gradients.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from portdet.align.compare import DumpWriter, Sketches
from portdet.session import Array
from portdet_paddle import hooks
from tests import absent
from tests.align.peers import case

FOLDER = Path(os.environ["PORTDET_PPDET"])
Put = Callable[[str, Array], None]


def built(variant: str) -> tuple[Any, Any]:
    """The published model, without DropBlock's random numbers; batch norm for SyncBN, as on one device."""
    from ppdet.core.workspace import create, load_config  # type: ignore[import-not-found]

    settings = load_config(str(FOLDER / "configs/ppyolo" / case.CONFIGS[variant]))
    settings["norm_type"] = "bn"
    settings["PPYOLOFPN"]["drop_block"] = False
    return create(settings.architecture), settings


def old_coordinates() -> None:
    """-1 to 1 over the width, as up to release 2.1."""
    from ppdet.modeling.necks import yolo_fpn  # type: ignore[import-not-found]

    def add_coord(x: Any, data_format: str) -> tuple[Any, Any]:
        b, _, h, w = x.shape
        across, down = paddle.linspace(-1, 1, w), paddle.linspace(-1, 1, h)
        return across.reshape([1, 1, 1, w]).expand([b, 1, h, w]), down.reshape([1, 1, h, 1]).expand([b, 1, h, w])

    yolo_fpn.add_coord = add_coord


def inputs(model: Any, seed: int, put: Put) -> dict[str, Any]:
    """Images and targets, these by ppdet's own `Gt2YoloTarget`."""
    from ppdet.data.transform.batch_operators import Gt2YoloTarget  # type: ignore[import-not-found]

    head = model.yolo_head
    anchors = [list(anchor) for level in reversed(head.anchors) for anchor in level]
    levels = len(head.anchors)
    masks = [list(range(3 * level, 3 * level + 3)) for level in reversed(range(levels))]
    given = case.samples()
    for sample in given:
        sample["gt_score"] = sample["gt_score"][:, None]
    made = Gt2YoloTarget(anchors, masks, [32, 16, 8][:levels], num_classes=head.num_classes)(given)
    found = {"image": case.pictures(seed), "gt_bbox": np.stack([sample["gt_bbox"] for sample in case.samples()])}
    for level in range(levels):
        found[f"target{level}"] = np.stack([sample[f"target{level}"] for sample in made]).astype(np.float32)
        put(f"targets/{level}", found[f"target{level}"])
    return {name: paddle.to_tensor(array) for name, array in found.items()}


def step(model: Any, settings: Any, seed: int, put: Put) -> None:
    """Weights, activations in evaluation and in training, losses, gradients, and the state after a step."""
    shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    arrays = case.weights(shapes, seed)
    model.set_state_dict(arrays)
    hooks.weights(model, put)
    batch = inputs(model, seed, put)
    model.eval()
    with hooks.collected(model, put, gradients=False), paddle.no_grad():
        model.yolo_head(model.neck(model.backbone(batch)))
    model.train()
    with hooks.collected(model, prefixed(put)):
        losses = model(batch)
        losses["loss"].backward()
    for name in sorted(losses, key="loss".__eq__):
        put(f"loss/{name.removeprefix('loss_')}", losses[name].numpy())
    hooks.weight_gradients(model, put)
    from ppdet.core.workspace import create

    optimizer = create("OptimizerBuilder")(case.RATE, model)
    optimizer.step()
    moved = {name.rpartition("_velocity")[0]: tensor for name, tensor in optimizer.state_dict().items()}
    for name, parameter in model.named_parameters():
        if parameter.name in moved:
            put(f"step/momentum/{name}", moved[parameter.name].numpy())
    hooks.weights(model, lambda name, array: put(f"step/{name}", array))


def prefixed(put: Put) -> Put:
    """The training pass's activations under a level of their own, 'train'."""
    return lambda name, array: put(name.replace("forward/", "train/", 1), array)


def main() -> None:
    sys.path.insert(0, str(FOLDER))
    folder, variant, edits, *seeds = sys.argv[1:]
    paddle.set_device("cpu")
    with absent.allowed():
        model, settings = built(variant)
        if "coordinates" in edits:
            old_coordinates()
        if "clip" in edits:
            settings.OptimizerBuilder["clip_grad_by_norm"] = None
        for seed in map(int, seeds):
            about = {"program": "PaddleDetection", "paddle": paddle.__version__, "seed": str(seed)}
            with DumpWriter(Path(folder, f"{seed}.safetensors"), about) as out:
                step(model, settings, seed, Sketches(out.put))
            model.clear_gradients()


if __name__ == "__main__":
    main()
