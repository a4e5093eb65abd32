"""What has to hold in a process before mindspore is imported there."""

from __future__ import annotations

import os
import sys

from portdet.errors import PortdetError


def prepare() -> None:
    """Set the environment of MindSpore's CPU kernels. Raises PortdetError beside another framework.

    ONEDNN_MAX_CPU_ISA=AVX2: with AVX-512, MindSpore 2.9 and 2.10 run convolutions on oneDNN's reference kernel (one
    3x3 convolution 2.24 s instead of 0.02 s). GLOG_v=3 hides warnings; it is set for this process alone, as Paddle
    reads the same variable the other way round. MS_CPU_COMM_OP_TIMEOUT (s): without it, ranks wait 30 s for
    each other, and one may compile, draw or save for longer; when one ends, the launcher ends the others.
    """
    if "mindspore" in sys.modules:
        return
    for other in ("paddle", "torch"):
        if other in sys.modules:
            raise PortdetError(
                f"mindspore cannot start in a process that has imported {other}: their oneDNN libraries collide",
                fix="run each backend in a process of its own, as `portdet align` does",
            )
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
    os.environ.setdefault("GLOG_v", "3")
    os.environ.setdefault("MS_CPU_COMM_OP_TIMEOUT", str(24 * 3600))
