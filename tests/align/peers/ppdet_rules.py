"""Single rules of PaddleDetection as functions of given numbers: `... -m tests.align.peers.ppdet_rules OUT`.

PORTDET_PPDET: the folder of its sources. Writes the dump OUT, under the names of `miemie_rules`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from portdet.align.compare import DumpWriter
from portdet.session import Array
from tests import absent
from tests.align.peers import case

Put = Callable[[str, Array], None]


def coordinates(put: Put) -> None:
    from ppdet.modeling.necks.yolo_fpn import add_coord  # type: ignore[import-not-found]

    x, y = add_coord(paddle.zeros([1, 4, 5, 7]), "NCHW")
    put("coord/x", x.numpy())
    put("coord/y", y.numpy())


def dropped(put: Put) -> None:
    from ppdet.modeling.layers import DropBlock  # type: ignore[import-not-found]

    real, paddle.rand = paddle.rand, lambda shape, **_: paddle.to_tensor(case.uniform(*shape))
    layer = DropBlock(3, 0.9, "block")
    layer.train()
    put("dropblock/out", layer(paddle.to_tensor(case.draw("block", 2, 6, 8, 8))).numpy())
    paddle.rand = real


def decoded(put: Put) -> None:
    from ppdet.modeling.layers import YOLOBox

    decode = YOLOBox(num_classes=4, conf_thresh=0.01, downsample_ratio=8, clip_bbox=True, scale_x_y=1.05)
    for name, head, size in case.heads():
        factor = np.float32(96) / np.array([size, size], np.float32)
        found = decode([paddle.to_tensor(head)], [case.ANCHORS], paddle.full([2, 2], 96.0), paddle.to_tensor(factor))
        case.put_boxes(name, found[0].numpy(), found[1].numpy().transpose(0, 2, 1), put)


def suppressed(put: Put) -> None:
    from ppdet.modeling.layers import MatrixNMS

    def rows(boxes: Array, scores: Array, **options: Any) -> Array:
        given = {"score_threshold": 0.01, "post_threshold": 0.0, "nms_top_k": -1, "keep_top_k": 5000, **options}
        nms = MatrixNMS(background_label=-1, **given)
        found: Array = nms(paddle.to_tensor(boxes[None]), paddle.to_tensor(scores[None]))[0].numpy()
        return found

    boxes, scores = case.crowd(1, 40)
    put("nms/scores if boxes are a pixel larger for none", rows(boxes, scores, normalized=True)[:, 1])
    put("nms/scores", rows(boxes, scores)[:, 1])
    many = rows(*case.crowd(3, 400), normalized=True)
    put("nms/rows of 1200 candidates", np.array([len(many)]))
    put("nms/best 100 of 1200 candidates", many[:100, 1])
    put("nms/rows where nothing is left", rows(boxes, scores * 0)[:, :2])


def averaged(put: Put) -> None:
    from ppdet.optimizer import ModelEMA  # type: ignore[import-not-found]

    layer = paddle.nn.Linear(3, 2)
    average = ModelEMA(layer, 0.9998, "threshold")
    decays = []
    for step in range(4):
        layer.weight.set_value(case.moving(step))
        average.update(layer)
        decays.append(average._decay)
        if step == 2:
            put("ema/evaluated after 3 steps", average.apply()["weight"].numpy())
            put("ema/evaluated once more", average.apply()["weight"].numpy())
    put("ema/decay", np.array(decays))
    put("ema/shadow a step later", average.state_dict["weight"].numpy())


def clipped(put: Put) -> None:
    from ppdet.optimizer import OptimizerBuilder

    layer = paddle.nn.Linear(6, 1)
    optimizer = OptimizerBuilder(35.0, regularizer=None)(0.1, layer)
    pairs = [(p, paddle.to_tensor(g)) for p, g in zip((layer.weight, layer.bias), case.gradients(), strict=True)]
    for name, (_, gradient) in zip(("of weights", "of norms"), optimizer._grad_clip(pairs), strict=True):
        put(f"clip/gradients {name}", gradient.numpy())


def rates(put: Put) -> None:
    from ppdet.core.workspace import create, load_config  # type: ignore[import-not-found]

    load_config(str(Path(os.environ["PORTDET_PPDET"], "configs/ppyolo", case.CONFIGS["r50vd_dcn"])))
    schedule = create("LearningRate")(case.STEPS_PER_EPOCH)
    for name, steps in case.RATES.items():
        found = []
        for step in steps:
            schedule.step(step)
            found.append(schedule())
        put(f"lr/{name}", np.array(found))


def main() -> None:
    sys.path.insert(0, os.environ["PORTDET_PPDET"])
    paddle.set_device("cpu")
    with absent.allowed(), DumpWriter(sys.argv[1], {"program": "PaddleDetection", "paddle": paddle.__version__}) as out:
        for rule in (coordinates, dropped, decoded, suppressed, averaged, clipped, rates):
            rule(out.put)


if __name__ == "__main__":
    main()
