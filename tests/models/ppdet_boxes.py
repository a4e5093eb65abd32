"""`python -m tests.models.ppdet_boxes`: Paddle's own way from raw heads to boxes, as PaddleDetection's YOLOv3 goes it.

`BBoxPostProcess`: each level through `yolo_box`, all of them through `multiclass_nms3`, with the numbers of
configs/yolov3/_base_/yolov3_darknet53.yml.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from portdet.models.yolov3 import ANCHORS
from portdet.processes.child import serve

CLASSES, SIDE = 6, 160
SIZES = np.array([[230, 150], [118, 200]])  # width, height of the originals


def heads(seed: int = 0) -> list[np.ndarray[Any, Any]]:
    """Raw outputs at strides 32, 16, 8 whose scores lie about the thresholds; boxes that overlap."""
    random = np.random.RandomState(seed)
    made = []
    for stride in (32, 16, 8):
        grid = SIDE // stride
        raw = random.randn(2, 3, 5 + CLASSES, grid, grid)
        raw[:, :, 2:4] *= 0.4
        raw[:, :, 4] = 2 * raw[:, :, 4] - 3.5
        raw[:, :, 5:] = 2 * raw[:, :, 5:] - 1
        made.append(raw.reshape(2, -1, grid, grid).astype(np.float32))
    return made


def run(request: Any) -> None:
    """Write the boxes of both images, (n, 6): label, score, corners, to the request's path "to"."""
    from portdet_paddle.start import start

    start(1)
    import paddle

    boxes, scores = [], []
    # the image's size is found again from the input's and the factor of the resize: 150 becomes 149 here
    factor = paddle.to_tensor((SIDE / SIZES[:, ::-1]).astype(np.float32))
    size = paddle.cast(paddle.full([2, 2], SIDE, "float32") / factor, "int32")
    for level, head in enumerate(heads()):
        anchors = [int(side) for pair in ANCHORS[6 - 3 * level : 9 - 3 * level] for side in pair]
        found = paddle.vision.ops.yolo_box(
            paddle.to_tensor(head), size, anchors, CLASSES, 0.005, 32 // 2**level, clip_bbox=True, scale_x_y=1.0
        )
        boxes.append(found[0])
        scores.append(found[1].transpose([0, 2, 1]))
    out, _, counts = paddle._C_ops.multiclass_nms3(
        paddle.concat(boxes, axis=1), paddle.concat(scores, axis=2), None, 0.01, 1000, 100, 0.45, True, 1.0, -1
    )
    first, second = np.split(out.numpy(), np.cumsum(counts.numpy())[:-1])
    np.savez(request["to"], first=first, second=second)


if __name__ == "__main__":
    serve(run)
