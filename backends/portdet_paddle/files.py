"""Weight files through Paddle's own loader."""

from __future__ import annotations

from pathlib import Path

import paddle

from portdet.session import Arrays


def load_file(path: Path) -> Arrays:
    """The tensors of a state dict by name; bfloat16 comes as float32.

    paddle.load unpickles, and so runs what a file tells it to: for files that portdet wrote itself, no others.
    """
    table = {name: paddle.to_tensor(value) for name, value in paddle.load(str(path)).items()}
    return {name: (t.astype("float32") if t.dtype == paddle.bfloat16 else t).numpy() for name, t in table.items()}
