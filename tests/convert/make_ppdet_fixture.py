"""Makes `ppdet_yolov3.json` and `ppdet_yolov3.npz` with PaddleDetection itself, and checks what the tests rely on.

    PORTDET_PPDET=folder python -m tests.convert.make_ppdet_fixture

The folder holds PaddleDetection's `ppdet` and `configs` (develop, 666f597; Apache-2.0); nothing of it is in this
repository. Its YOLOv3 is built from configs/yolov3/yolov3_darknet53_270e_coco.yml, filled by the formula of
`ppdet_case.value` and saved by its own `save_model`. Packages that ppdet imports and this detector does not use may be
absent. With Paddle 3.3.1, numpy 1.26.4 on CPU the three checks at the end held: the file that `ppdet_write` makes
without ppdet is equal byte for byte; canonical weights under ppdet's names again are the same tensors in the same
order; and ppdet's `load_weight` takes that file, after which the outputs have the same bits.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from portdet.processes.child import run_child
from portdet.session import Array, Arrays
from portdet_convert import open_weights, yolov3
from portdet_convert.files import pdparams
from portdet_convert.rules import recognise, restore
from tests import absent
from tests.convert.ppdet_case import NAMES, OUTPUTS, SIDE, boxes, digest, images, kept, kept_boxes, value
from tests.patience import GUARD


def build(folder: Path) -> Any:
    """ppdet's model. Its configuration asks for SyncBN, which ppdet itself replaces by batch norm where it runs on
    one device."""
    from ppdet.core.workspace import create, load_config  # type: ignore[import-not-found]

    config = load_config(str(folder / "configs/yolov3/yolov3_darknet53_270e_coco.yml"))
    config["norm_type"] = "bn"
    return create(config.architecture)


def heads(model: Any) -> list[Array]:
    """Raw outputs in evaluation mode, strides 32, 16, 8."""
    model.eval()
    features = model.neck(model.backbone({"image": paddle.to_tensor(images())}))
    return [output.numpy() for output in model.yolo_head(features)]


def decoded(model: Any, raw: list[Array]) -> tuple[Array, Array]:
    """ppdet's own `YOLOBox`, as configured: boxes (B, N, 4), scores (B, 80, N)."""
    shape, scale = np.full((2, 2), SIDE, np.float32), np.ones((2, 2), np.float32)
    given = [paddle.to_tensor(array) for array in raw]
    found = model.post_process.decode(
        given, model.yolo_head.mask_anchors, paddle.to_tensor(shape), paddle.to_tensor(scale)
    )
    return found[0].numpy(), found[1].numpy()


def losses(model: Any) -> Arrays:
    """The terms of the loss in training mode, targets by ppdet's own `Gt2YoloTarget`."""
    from ppdet.data.transform.batch_operators import Gt2YoloTarget  # type: ignore[import-not-found]

    pixels, labels = boxes()
    centre = np.concatenate([(pixels[..., :2] + pixels[..., 2:]) / 2, pixels[..., 2:] - pixels[..., :2]], axis=2) / SIDE
    samples = [
        {"image": image, "gt_bbox": box, "gt_class": label, "gt_score": np.ones((len(label), 1), np.float32)}
        for image, box, label in zip(images(), centre.astype(np.float32), labels, strict=True)
    ]
    head = model.yolo_head
    flat = [[float(v) for v in anchor] for level in reversed(head.anchors) for anchor in level]
    made = Gt2YoloTarget(flat, [[6, 7, 8], [3, 4, 5], [0, 1, 2]], [32, 16, 8], num_classes=80)(samples)
    kinds = ("image", "gt_bbox", "target0", "target1", "target2")
    batch = {kind: paddle.to_tensor(np.stack([s[kind] for s in made]).astype(np.float32)) for kind in kinds}
    model.train()
    return {name: np.array(float(term)) for name, term in model(batch).items()}


def main() -> None:
    folder = Path(os.environ["PORTDET_PPDET"])
    sys.path.insert(0, str(folder))
    sys.meta_path.append(absent.Finder())
    model = build(folder)
    from ppdet.utils.checkpoint import load_weight, save_model  # type: ignore[import-not-found]

    model.set_state_dict({name: value(name, tuple(t.shape)) for name, t in model.state_dict().items()})
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    names = {name: tensor.name for name, tensor in model.state_dict().items()}
    with tempfile.TemporaryDirectory() as scratch:
        optimizer = paddle.optimizer.Momentum(parameters=model.parameters())
        save_model(model.state_dict(), optimizer, scratch, "model_final", 0)
        written = Path(scratch, "model_final.pdparams")
        NAMES.write_text(_json(state, names), encoding="utf-8")
        raw = heads(model)
        np.savez_compressed(OUTPUTS, **kept(raw), **kept_boxes(*decoded(model, raw)), **losses(model))

        again = Path(scratch, "again.pdparams")
        run_child("tests.convert.ppdet_write", {"to": str(again)}, timeout=GUARD)
        print("the file written without ppdet has the same bytes:", _sha(again) == _sha(written))

        found = recognise(open_weights(written).arrays, yolov3.NAMINGS, yolov3.expected)
        back, _ = restore(yolov3.PPDET, found.arrays)
        pdparams.write(again, back)
        print(
            "canonical and back, same tensors in the same order:",
            digest(back) == digest(state),
            list(back) == list(state),
        )
        fresh = build(folder)
        load_weight(fresh, str(again))
        same = all(np.array_equal(a, b) for a, b in zip(heads(fresh), raw, strict=True))
        print("ppdet's load_weight takes it, outputs have the same bits:", same)


def _json(state: Arrays, internal: dict[str, str]) -> str:
    head = {"program": "PaddleDetection 666f597", "paddle": paddle.__version__, "sha256": digest(state)}
    lines = ",\n".join(json.dumps([name, internal[name], list(array.shape)]) for name, array in state.items())
    return json.dumps(head, indent=1).removesuffix("\n}") + f',\n "tensors": [\n{lines}\n]}}\n'


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
