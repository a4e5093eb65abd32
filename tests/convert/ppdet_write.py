"""`python -m tests.convert.ppdet_write`: the `.pdparams` of ppdet's YOLOv3 without ppdet, by Paddle's own `save`."""

from __future__ import annotations

from typing import Any

import paddle

from portdet.processes.child import serve
from tests.convert.ppdet_case import facts, value


def state_dict() -> dict[str, Any]:
    """Tensors under ppdet's names and in its order, with the internal names that `save` writes beside them."""
    state = {}
    for name, internal, shape in facts()["tensors"]:
        tensor = paddle.to_tensor(value(name, tuple(shape)))
        tensor.name = internal
        state[name] = tensor
    return state


def write(request: Any) -> None:
    """Write to the path `request["to"]`."""
    paddle.save(state_dict(), request["to"])


if __name__ == "__main__":
    serve(write)
