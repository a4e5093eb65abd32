"""Weight files through MindSpore's own loader."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms

from portdet.processes.scratch import scratch
from portdet.session import Arrays


def load_file(path: Path) -> Arrays:
    """The parameters of a checkpoint by name; bfloat16 comes as float32."""
    with scratch() as folder:
        link = folder / "weights.ckpt"  # MindSpore reads no other suffix
        link.symlink_to(path.resolve())
        table = ms.load_checkpoint(str(link))
    wide = {name: p.astype(ms.float32) if p.dtype == ms.bfloat16 else p for name, p in table.items()}
    return {name: parameter.asnumpy() for name, parameter in wide.items()}
