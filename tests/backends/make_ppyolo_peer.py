r"""Makes `ppyolo_peer_{narrow,full}.{json,npz}` with PaddleDetection itself.

    PORTDET_PPDET=folder PORTDET_PPDET24=folder PORTDET_MIEMIE=folder \
        python -m tests.backends.make_ppyolo_peer narrow|full

The folders hold `ppdet` and `configs` of PaddleDetection develop (666f597) and of release/2.4, which gives the moving
average, and `mmdet` of miemiedetection (7193fa8), whose post-process gets the same heads; all Apache-2.0, nothing of
them is in this repository. It runs as it is in float32 (heads, losses, boxes after its own post-process, the file its
`save_model` writes) and once more in float64, where no ReLU stands on the wrong side of zero by rounding: gradients,
and five steps of its own optimiser. For that, and for narrow layers, the lines in `WIDE` and `NARROW` are changed in a
copy. Kept of a large tensor: `ppyolo_peer.summary`.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import torch

from portdet.session import Array, Arrays
from tests import absent
from tests.backends import ppyolo_peer as peer
from tests.convert.ppyolo_case import SIDE, boxes, images, value

WIDE = {
    "modeling/losses/yolo_loss.py": {"x.astype('float32'), t": "x, t"},
    "modeling/layers.py": {"mask = mask.astype('float32')": "pass", "x = x.astype('float32')\n            y": "y"},
}
"""float64 passes through the loss and DropBlock; nothing changes in float32."""
NARROW = {
    "modeling/backbones/resnet.py": {
        "[64, 128, 256, 512]": "[8, 16, 32, 64]", "18: [2, 2, 2, 2]": "18: [1, 2, 1, 2]",
        "50: [3, 4, 6, 3]": "50: [1, 2, 1, 2]",
    },
    "modeling/necks/yolo_fpn.py": {
        "ch_in += 512 // (2**i)\n            channel = 64 * (2**self.num_blocks) // (2**i)":
        "ch_in += UP * 2 // (2**i)\n            channel = 16 // (2**i)",
        "ch_out=256 // (2**i)": "ch_out=UP // (2**i)",
        "ch_in += 512 // (2**(i - 1))": "ch_in += 16 // (2**(i - 1))",
        "channel = 512 // (2**i)": "channel = 16 // (2**i)",
        "[512 // (2**(self.num_blocks - 2)), ]": "[16 // (2**(self.num_blocks - 2)), ]",
    },
}  # fmt: skip
"""An eighth of the channels of the backbone, 16 in the neck; UP, between its levels, is 8, or 16 in r18vd."""


def copy(folder: Path, scratch: Path, size: peer.Size, variant: str) -> None:
    """PaddleDetection into `scratch`, with the edits."""
    shutil.copytree(folder / "ppdet", scratch / "ppdet")
    shutil.copytree(folder / "configs", scratch / "configs")
    for edits in (WIDE, NARROW if size == "narrow" else {}):
        for name, pairs in edits.items():
            path = scratch / "ppdet" / name
            text = path.read_text(encoding="utf-8")
            for old, new in pairs.items():
                assert old in text, (name, old)
                text = text.replace(old, new.replace("UP", "16" if variant == "r18vd" else "8"))
            path.write_text(text, encoding="utf-8")


def build(folder: Path, size: peer.Size, variant: str, dtype: str) -> tuple[Any, Any]:
    """ppdet's model with its weights, and its settings. Batch norm for SyncBN, as it has it itself on one device."""
    from ppdet.core.workspace import create, load_config  # type: ignore[import-not-found]

    paddle.set_default_dtype(dtype)
    settings = load_config(str(folder / "configs/ppyolo" / peer.CONFIGS[variant]))
    settings["norm_type"] = "bn"
    settings[settings.YOLOv3["neck"]]["drop_block"] = size == "narrow"
    if size == "narrow":
        settings["num_classes"] = 4
        settings["ResNet"]["ch_in"] = 8
    settings.OptimizerBuilder["regularizer"]["factor"] = peer.DECAY
    settings.OptimizerBuilder["clip_grad_by_norm"] = peer.CLIP[variant] or None
    model = create(settings.architecture)
    fill(model, dtype)
    return model, settings


def fill(model: Any, dtype: str) -> None:
    state = {name: value(name, tuple(tensor.shape)).astype(dtype) for name, tensor in model.state_dict().items()}
    model.set_state_dict(state)


def given_noise(drawn: Array) -> None:
    """`paddle.rand` hands out `drawn` (B, K, g, g) in turn: what DropBlock asks for."""
    at = 0

    def rand(shape: Any) -> Any:
        nonlocal at
        start, at = at, at + math.prod(shape) // (drawn.size // drawn.shape[1])
        assert at <= drawn.shape[1]
        return paddle.to_tensor(drawn[:, start:at].reshape(shape).astype(paddle.get_default_dtype()))

    paddle.rand = rand


def batch(model: Any, size: peer.Size) -> dict[str, Any]:
    """What the model takes in training, targets by ppdet's own `Gt2YoloTarget`."""
    from ppdet.data.transform.batch_operators import Gt2YoloTarget  # type: ignore[import-not-found]

    pixels, _, scores = boxes()
    low, high = pixels[..., :2] / SIDE, pixels[..., 2:] / SIDE
    shares = np.concatenate([low + (high - low) / 2, high - low], axis=2)
    samples = [
        {"image": image, "gt_bbox": box, "gt_class": label, "gt_score": score[:, None]}
        for image, box, label, score in zip(images(), shares, peer.labels(size), scores, strict=True)
    ]
    head = model.yolo_head
    anchors = [list(anchor) for level in reversed(head.anchors) for anchor in level]
    levels = len(anchors) // 3
    masks = [list(range(3 * level, 3 * level + 3)) for level in reversed(range(levels))]
    made = Gt2YoloTarget(anchors, masks, [32, 16, 8][:levels], num_classes=head.num_classes)(samples)
    names = ["image", "gt_bbox", *(f"target{level}" for level in range(levels))]
    dtype = paddle.get_default_dtype()
    return {name: paddle.to_tensor(np.stack([s[name] for s in made]).astype(dtype)) for name in names}


def forward(model: Any) -> Arrays:
    """Heads as its post-process gets them, and the boxes that come out of it."""
    model.eval()
    factor = np.stack([SIDE / peer.SIZES[:, 1], SIDE / peer.SIZES[:, 0]], axis=1)  # y, x
    given = {
        "image": paddle.to_tensor(images()), "im_shape": paddle.to_tensor(np.full((2, 2), SIDE, np.float32)),
        "scale_factor": paddle.to_tensor(factor.astype(np.float32)),
    }  # fmt: skip
    heads = [output.numpy() for output in model.yolo_head(model.neck(model.backbone(given)))]
    found = model(given)
    number = int(found["bbox_num"][0])
    rows = found["bbox"].numpy()
    out = {f"head{level}": head.reshape(-1)[:: 1 + head.size // 6000] for level, head in enumerate(heads)}
    out |= {"boxes0": rows[:number], "boxes1": rows[number:]}
    print(" heads", [(float(h.std()), float(abs(h).max())) for h in heads], "boxes", found["bbox_num"].tolist())
    for one in (rows[:number], rows[number:]):
        gaps = -np.diff(one[:, 1])
        print("  scores", one[0, 1], one[-1, 1], "least gaps", np.sort(gaps)[:4])
    return out


def functions(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Functions and classes of a module that cannot be imported here as a whole."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    part = ast.Module([node for node in tree.body if getattr(node, "name", "") in names], [])
    space: dict[str, Any] = {
        "paddle": paddle, "math": math, "weakref": weakref, "np": np, "torch": torch, "T": torch
    }  # fmt: skip
    exec(compile(part, str(path), "exec"), space)
    return space


def other_boxes(model: Any, settings: Any, folder: Path) -> Arrays:
    """The boxes that miemiedetection finds in the raw heads, with its own settings."""
    head_names = ("_split_ioup", "_de_sigmoid", "_postprocess_output", "get_iou_aware_score")
    merge = functions(folder / "mmdet/models/heads/yolov3_head.py", head_names)["get_iou_aware_score"]
    decode = functions(folder / "mmdet/models/custom_layers.py", ("paddle_yolo_box",))["paddle_yolo_box"]
    nms = functions(folder / "mmdet/models/matrix_nms.py", ("intersect", "jaccard", "_matrix_nms", "matrix_nms"))
    model.eval()
    head = model.yolo_head
    features = model.neck(model.backbone({"image": paddle.to_tensor(images())}))
    found = []
    for level, (layer, feature) in enumerate(zip(head.yolo_outputs, features, strict=True)):
        raw = torch.from_numpy(layer(feature).numpy())
        if head.iou_aware:
            raw = merge(raw, 3, head.num_classes, head.iou_aware_factor)
        anchors = np.array(head.anchors[level], np.float32)
        shape = torch.from_numpy(peer.SIZES[:, ::-1].astype(np.float32))
        scale = settings["YOLOv3Loss"]["scale_x_y"]
        found.append(decode(raw, anchors, 32 // 2**level, head.num_classes, scale, shape, True, conf_thresh=0.01))
    boxes, scores = (torch.cat([level[part] for level in found], 1) for part in (0, 1))
    options = {"score_threshold": 0.01, "post_threshold": 0.01, "nms_top_k": 500, "keep_top_k": 100}
    return {f"other{i}": nms["matrix_nms"](boxes[i], scores[i], **options).numpy() for i in range(2)}


def losses(model: Any, size: peer.Size, drawn: Array | None) -> tuple[Arrays, Any]:
    """The terms in training mode, and the tensor 'loss'."""
    if drawn is not None:
        given_noise(drawn)
    model.train()
    terms = model(batch(model, size))
    return {name: np.array(float(term)) for name, term in terms.items()}, terms["loss"]


def steps(model: Any, settings: Any, drawn: Array | None, old: Path) -> Arrays:
    """Five of ppdet's own training steps: summaries of weights and of the average as it is evaluated, after each."""
    from ppdet.core.workspace import create

    settings.LearningRate["schedulers"][1].steps = peer.WARM
    schedule = create("LearningRate")(1000)
    optimizer = create("OptimizerBuilder")(schedule, model)
    average = functions(old / "ppdet/optimizer.py", ("ModelEMA",))["ModelEMA"]  # its module asks for an older Paddle
    ema = average(model, settings["ema_decay"])
    rates, total, weights, averages = [], [], [], []
    for step in range(peer.STEPS):
        terms, loss = losses(model, "narrow", drawn)
        loss.backward()
        optimizer.step()
        rates.append(optimizer.get_lr())
        schedule.step()
        optimizer.clear_grad()
        ema.update()
        print(" step", step, rates[-1], {name: round(float(term), 4) for name, term in terms.items()})
        total.append(terms["loss"])
        weights.append(table(model, {name: tensor.numpy() for name, tensor in model.state_dict().items()}))
        averages.append(table(model, {name: tensor.numpy() for name, tensor in ema.apply().items()}))
    tables = {"weights": np.stack(weights), "ema": np.stack(averages)}
    return {**tables, "rates": np.array(rates), "step_losses": np.array(total)}


def table(model: Any, arrays: Arrays) -> Array:
    """`peer.summary` of each of the model's tensors in order, float32; nan where there is none."""
    none = np.full(2 + peer.COUNT, np.nan)
    return np.stack([peer.summary(arrays[n]) if n in arrays else none for n in model.state_dict()]).astype(np.float32)


def saved(model: Any) -> dict[str, Any]:
    """What `save_model` writes: tensors in order, and the file's hash."""
    from ppdet.utils.checkpoint import save_model  # type: ignore[import-not-found]

    with tempfile.TemporaryDirectory() as scratch:
        optimizer = paddle.optimizer.Momentum(parameters=model.parameters())
        save_model(model.state_dict(), optimizer, scratch, "model_final", 0)
        sha = hashlib.sha256(Path(scratch, "model_final.pdparams").read_bytes()).hexdigest()
    tensors = [[name, tensor.name, list(tensor.shape)] for name, tensor in model.state_dict().items()]
    return {"sha256": sha, "tensors": tensors}


def counts(model: Any, size: peer.Size, drawn: Array | None) -> dict[str, int]:
    """Values a channel of each batch norm sees in a step."""
    found: dict[str, int] = {}
    hooks = [
        layer.register_forward_post_hook(
            lambda _, x, __, name=name: found.__setitem__(name, x[0].shape[0] * x[0].shape[2] * x[0].shape[3])
        )
        for name, layer in model.named_sublayers()
        if isinstance(layer, paddle.nn.BatchNorm2D)
    ]
    losses(model, size, drawn)
    for hook in hooks:
        hook.remove()
    return found


def one(size: peer.Size, variant: str, folder: Path, old: Path) -> tuple[dict[str, Any], Arrays]:
    """All of one variant."""
    detector = peer.model(variant, size)
    drawn = peer.batch(size, detector).noise
    model, settings = build(folder, size, variant, "float32")
    told = saved(model)
    out = forward(model) | other_boxes(model, settings, Path(os.environ["PORTDET_MIEMIE"]))
    out |= {f"losses/{name}": term for name, term in losses(model, size, drawn)[0].items()}
    fill(model, "float32")
    narrow32 = gradients(model, size, drawn)
    told["counts"] = counts(model, size, drawn)
    model, settings = build(folder, size, variant, "float64")
    exact = gradients(model, size, drawn)
    apart = [np.abs(narrow32[n] - g).max() / max(np.abs(g).max(), 1e-30) for n, g in exact.items()]
    print(f" {variant}: float32 against float64, gradients: median {np.median(apart):.1e}, worst {max(apart):.1e}")
    out["own_error"] = np.array([np.median(apart), max(apart)])
    out["gradients"] = table(model, exact)
    if size == "narrow":
        fill(model, "float64")
        out |= steps(model, settings, drawn, old)
    return told, out


def gradients(model: Any, size: peer.Size, drawn: Array | None) -> Arrays:
    """Of the loss, of every trainable tensor."""
    losses(model, size, drawn)[1].backward()
    found = {name: tensor.grad.numpy().copy() for name, tensor in model.named_parameters() if not tensor.stop_gradient}
    model.clear_gradients()
    return found


def main() -> None:
    size: Any = sys.argv[1]
    if len(sys.argv) == 2:  # a process a variant: edits differ, and internal names count from the first tensor
        names: dict[str, Any] = {"program": "PaddleDetection 666f597, ModelEMA of release/2.4"}
        names["paddle"] = paddle.__version__
        arrays: Arrays = {}
        for variant in peer.VARIANTS:
            with tempfile.TemporaryDirectory() as scratch:
                part = Path(scratch, "part")
                line = [sys.executable, "-m", "tests.backends.make_ppyolo_peer", size, variant, str(part)]
                assert os.spawnv(os.P_WAIT, sys.executable, line) == 0, variant
                names[variant] = json.loads(part.with_suffix(".json").read_text(encoding="utf-8"))
                with np.load(part.with_suffix(".npz")) as stored:
                    arrays |= {f"{variant}/{name}": stored[name] for name in stored.files}
        peer.fixture(size, "json").write_text(json.dumps(names) + "\n", encoding="utf-8")
        np.savez_compressed(peer.fixture(size, "npz"), **arrays)
        return
    variant, part = sys.argv[2], Path(sys.argv[3])
    with tempfile.TemporaryDirectory() as scratch:
        copy(Path(os.environ["PORTDET_PPDET"]), Path(scratch), size, variant)
        sys.path.insert(0, scratch)
        sys.meta_path.append(absent.Finder())
        told, out = one(size, variant, Path(scratch), Path(os.environ["PORTDET_PPDET24"]))
    part.with_suffix(".json").write_text(json.dumps(told), encoding="utf-8")
    np.savez(part.with_suffix(".npz"), **out)


if __name__ == "__main__":
    main()
