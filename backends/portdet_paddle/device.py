"""Which device a name means, and a clear error where it is absent."""

from __future__ import annotations

import paddle
import paddle.distributed as dist

from portdet.errors import PortdetError
from portdet.ranks import Place


def find_device(name: str) -> str:
    """'cpu', 'cuda', 'gpu:1', 'npu:0' or 'Ascend' -> Paddle's name. Never another device than was asked for."""
    kind, _, index = name.lower().replace("ascend", "npu").replace("cuda", "gpu").partition(":")
    if kind not in ("cpu", "gpu", "npu") or (index and not index.isdigit()):
        raise PortdetError(f"unknown device '{name}' for paddle", fix="use cpu, cuda, cuda:1, npu:0 or Ascend")
    if kind == "cpu":
        return "cpu"
    if kind == "gpu":
        count = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
        if not count:
            raise PortdetError(
                f"device '{name}': paddle {paddle.__version__} sees no CUDA device",
                fix="install paddlepaddle-gpu and its driver, or use --device cpu",
            )
    else:
        if "npu" not in paddle.device.get_all_custom_device_type():
            raise PortdetError(
                f"device '{name}': paddle {paddle.__version__} reaches Ascend through the plugin paddle-custom-npu, "
                "which is not installed",
                fix="install paddle-custom-npu and CANN of a matching version, or use --backend mindspore, "
                "or --device cpu",
            )
        count = len([d for d in paddle.device.get_available_custom_device() if d.startswith("npu")])
        if not count:
            raise PortdetError(f"device '{name}': the npu plugin sees no device", fix="check npu-smi info and CANN")
    if int(index or 0) >= count:
        raise PortdetError(f"device '{name}' does not exist: {count} found", fix=f"use {kind}:0 to {kind}:{count - 1}")
    return f"{kind}:{index or 0}"


def device_of_rank(name: str, place: Place) -> str:
    """Paddle's name of this rank's device: of several cards the one that the launcher has given it."""
    device = find_device(name)
    if place.world == 1 or device == "cpu":
        return device
    if ":" in name:
        raise PortdetError(
            f"device '{name}' for {place.world} ranks: each needs its own",
            fix=f"name the kind alone, '{name.partition(':')[0]}'; CUDA_VISIBLE_DEVICES says which cards",
        )
    return find_device(f"{device.partition(':')[0]}:{dist.ParallelEnv().device_id}")
