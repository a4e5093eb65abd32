"""Single rules of miemiedetection as functions of given numbers: `... -m tests.align.peers.miemie_rules OUT`.

PORTDET_MIEMIE: the folder of its sources. Writes the dump OUT, under the names of `ppdet_rules`.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from portdet.align.compare import DumpWriter
from portdet.session import Array
from tests import absent
from tests.align.peers import case

Put = Callable[[str, Array], None]


def coordinates(put: Put) -> None:
    from mmdet.models.custom_layers import add_coord  # type: ignore[import-not-found]

    x, y = add_coord(torch.zeros(1, 4, 5, 7), "NCHW")
    put("coord/x", x.numpy())
    put("coord/y", y.numpy())


def dropped(put: Put) -> None:
    from mmdet.models.custom_layers import DropBlock

    def given(*shape: Any, **_: Any) -> Any:
        return torch.from_numpy(case.uniform(*(shape[0] if len(shape) == 1 else shape)))

    real, torch.rand = torch.rand, given
    layer = DropBlock(3, 0.9, "block")
    layer.train()
    put("dropblock/out", layer(torch.from_numpy(case.draw("block", 2, 6, 8, 8))).numpy())
    torch.rand = real


def decoded(put: Put) -> None:
    from mmdet.models.custom_layers import paddle_yolo_box

    anchors = np.array(case.ANCHORS, np.float32).reshape(-1, 2)
    for name, head, size in case.heads():
        sizes = torch.full((2, 2), float(size))
        found = paddle_yolo_box(torch.from_numpy(head), anchors, 8, 4, 1.05, sizes, True, conf_thresh=0.01)
        case.put_boxes(name, found[0].numpy(), found[1].numpy(), put)


def suppressed(put: Put) -> None:
    from mmdet.models.matrix_nms import matrix_nms  # type: ignore[import-not-found]

    def rows(boxes: Array, scores: Array) -> Array:
        options = {"score_threshold": 0.01, "post_threshold": 0.0, "nms_top_k": 500, "keep_top_k": 5000}
        found: Array = matrix_nms(torch.from_numpy(boxes), torch.from_numpy(scores.T.copy()), **options).numpy()
        return found

    boxes, scores = case.crowd(1, 40)
    put("nms/scores if boxes are a pixel larger for none", rows(boxes, scores)[:, 1])
    put("nms/scores", rows(boxes, scores)[:, 1])
    many = rows(*case.crowd(3, 400))
    put("nms/rows of 1200 candidates", np.array([len(many)]))
    put("nms/best 100 of 1200 candidates", many[:100, 1])
    put("nms/rows where nothing is left", rows(boxes, scores * 0)[:, :2])


def averaged(put: Put) -> None:
    from mmdet.utils.ema import PPdetModelEMA  # type: ignore[import-not-found]

    layer = torch.nn.Linear(2, 3)
    average = PPdetModelEMA(layer, 0.9998, "threshold")
    decays = []
    for step in range(4):
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(case.moving(step)))
        average.update(layer)
        decays.append(average._decay)
        if step == 2:
            put("ema/evaluated after 3 steps", average.apply()["weight"].numpy().copy())
            put("ema/evaluated once more", average.apply()["weight"].numpy().copy())
    put("ema/decay", np.array(decays))
    put("ema/shadow a step later", average.state_dict["weight"].numpy())


def clipped(put: Put) -> None:
    """The trainer's own lines, the statement `if self.need_clip:` of its `train_one_iter`, on the optimiser's groups:
    without decay (norms), with decay."""
    path = Path(os.environ["PORTDET_MIEMIE"], "mmdet/core/trainer.py")
    block = next(
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.If) and ast.unparse(node).startswith("if self.need_clip:\n    for ")
    )
    weights, norms = (torch.nn.Parameter(torch.zeros(g.shape)) for g in case.gradients())
    for parameter, gradient in zip((weights, norms), case.gradients(), strict=True):
        parameter.grad = torch.from_numpy(gradient)
    optimizer = torch.optim.SGD([norms], lr=0.1)
    optimizer.add_param_group({"params": [weights], "weight_decay": 5e-4})
    trainer = SimpleNamespace(need_clip=True, clip_norm=35.0, optimizer=optimizer)
    exec(compile(ast.Module([block], []), str(path), "exec"), {"torch": torch, "self": trainer})
    put("clip/gradients of weights", weights.grad.numpy())
    put("clip/gradients of norms", norms.grad.numpy())


def rates(put: Put) -> None:
    from tests.align.peers.miemie_child import experiment

    exp = experiment("r50vd_dcn", own_rate=True)
    schedule = exp.get_lr_scheduler(exp.basic_lr_per_img * 192, case.STEPS_PER_EPOCH)
    for name, steps in case.RATES.items():
        put(f"lr/{name}", np.array([schedule.update_lr(step) for step in steps]))


def main() -> None:
    sys.path.insert(0, os.environ["PORTDET_MIEMIE"])
    with absent.allowed(), DumpWriter(sys.argv[1], {"program": "miemiedetection", "torch": torch.__version__}) as out:
        for rule in (coordinates, dropped, decoded, suppressed, averaged, clipped, rates):
            rule(out.put)


if __name__ == "__main__":
    main()
