"""Which device a name means, and a clear error where it is absent."""

from __future__ import annotations

import importlib.util

import torch

from portdet.errors import PortdetError


def find_device(name: str) -> torch.device:
    """'cpu', 'cuda', 'cuda:1', 'npu:0' or 'Ascend' -> device. Never another one than was asked for."""
    kind, _, index = name.lower().replace("ascend", "npu").partition(":")
    if kind not in ("cpu", "cuda", "npu") or (index and not index.isdigit()):
        raise PortdetError(f"unknown device '{name}' for torch", fix="use cpu, cuda, cuda:1, npu:0 or Ascend")
    if kind == "cpu":
        return torch.device("cpu")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise PortdetError(
                f"device '{name}': torch {torch.__version__} sees no CUDA device",
                fix="install a CUDA build of torch and its driver, or use --device cpu",
            )
    else:
        if importlib.util.find_spec("torch_npu") is None:
            raise PortdetError(
                f"device '{name}': torch reaches Ascend through torch_npu, which is not installed",
                fix="install torch_npu and CANN of a matching version, or use --backend mindspore, or --device cpu",
            )
        importlib.import_module("torch_npu")
        count = torch.npu.device_count()
        if not count:
            raise PortdetError(f"device '{name}': torch_npu sees no Ascend device", fix="check npu-smi info and CANN")
    if index and int(index) >= count:
        raise PortdetError(f"device '{name}' does not exist: {count} found", fix=f"use {kind}:0 to {kind}:{count - 1}")
    return torch.device(kind, int(index or 0))
