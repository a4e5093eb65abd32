"""Which device a name means, and a clear error where it is absent."""

from __future__ import annotations

import mindspore as ms

from portdet.errors import PortdetError
from portdet.ranks import ALONE, Place

TARGETS = {"cpu": "CPU", "cuda": "GPU", "gpu": "GPU", "npu": "Ascend", "ascend": "Ascend"}
ADVICE = {
    "Ascend": "install CANN and a mindspore that matches it (npu-smi info shows the chip), or use --device cpu",
    "GPU": "CUDA builds of mindspore ended with 2.6; use --backend torch on this card, or --device cpu",
}


def use_device(name: str, place: Place = ALONE) -> str:
    """Make the device of 'cpu', 'Ascend:1', 'npu:1' or 'cuda:0' this process's own; its name. Never another one.

    Several ranks take one card each, in their order on this machine, and name none.
    """
    kind, _, index = name.partition(":")
    target = TARGETS.get(kind.lower())
    if target is None or (index and not index.isdigit()):
        raise PortdetError(f"unknown device '{name}' for mindspore", fix="use cpu, Ascend, Ascend:1, npu:1 or cuda:0")
    if target == "CPU":
        ms.set_device("CPU", place.local)  # the number that MindSpore gives a rank anyway, and then holds to
        return "cpu"
    if not ms.hal.is_available(target):
        raise PortdetError(f"device '{name}': mindspore {ms.__version__} sees no {target} here", fix=ADVICE[target])
    if index and place.world > 1:
        raise PortdetError(f"device '{name}' is one card, but there are {place.world} ranks", fix=f"use {kind}")
    number, count = int(index or place.local), ms.hal.device_count(target)
    if number >= count:
        raise PortdetError(f"device '{name}' does not exist: {count} found", fix=f"use {kind}:0 to {kind}:{count - 1}")
    ms.set_device(target, number)
    ms.set_deterministic(True)
    if target == "Ascend":
        # HF32 keeps 10 bits of the mantissa: it would hide every difference that alignment looks for
        ms.device_context.ascend.op_precision.conv_allow_hf32(False)
        ms.device_context.ascend.op_precision.matmul_allow_hf32(False)
    return f"{target}:{number}"
