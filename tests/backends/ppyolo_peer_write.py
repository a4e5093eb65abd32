"""PaddleDetection's `.pdparams` of PP-YOLO, without it: `ppyolo_peer_write.py IN OUT SIZE FOLDER VARIANT...`.

Paddle's own `save` of the same tensors under the same names in the same order: the bytes that `save_model` writes.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from tests.backends import ppyolo_peer as peer
from tests.convert.ppyolo_case import value


def main() -> None:
    _, target, size, folder, *variants = sys.argv[1:]
    hashes: dict[str, Any] = {}
    for variant in variants:
        state = {}
        for name, internal, shape in peer.facts("full" if size == "full" else "narrow")[variant]["tensors"]:
            state[name] = paddle.to_tensor(value(name, tuple(shape)))
            state[name].name = internal
        path = Path(folder, f"{variant}.pdparams")
        paddle.save(state, str(path))
        hashes[variant] = np.array(hashlib.sha256(path.read_bytes()).hexdigest())
    np.savez(target, **hashes)


if __name__ == "__main__":
    main()
