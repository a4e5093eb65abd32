"""What a user should know about the PyTorch at hand."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time

from portdet.processes.cores import cores
from portdet.session import Check

# A 3x3 convolution of the size that YOLOv3 is full of: 2 x 256 -> 512 channels at 26 x 26, 3.2 GFLOP.
BATCH, CIN, COUT, SIDE = 2, 256, 512, 26


def checks() -> list[Check]:
    """Import, devices, threads, the compiler behind torch.compile, and the speed of one convolution."""
    try:
        import torch
    except Exception as error:
        return [Check("fail", f"import torch: {type(error).__name__}: {error}", "pip install 'portdet[torch]'")]
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    return [Check("ok", f"import torch {torch.__version__}, built with {build}"), *_devices(), _threads(), _compiler()]


def _devices() -> list[Check]:
    import torch

    found = [_convolution("cpu")]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            check = _convolution(f"cuda:{index}")
            found.append(Check(check.level, f"{check.what} on {torch.cuda.get_device_name(index)}", check.advice))
    else:
        why = "sees no GPU" if torch.version.cuda else "is built without it"
        found.append(Check("ok", f"device cuda: absent, this torch {why}"))
    if importlib.util.find_spec("torch_npu") is None:
        found.append(Check("ok", "device npu (Ascend): absent, torch_npu is not installed"))
    else:
        found.append(_convolution("npu:0"))
    return found


def _convolution(device: str) -> Check:
    """Forward and backward of one convolution: right, and how long."""
    import torch

    from portdet_torch.device import find_device

    try:
        place = find_device(device)
        layer = torch.nn.Conv2d(CIN, COUT, 3, padding=1, bias=False, device=place)
        torch.nn.init.ones_(layer.weight)
        x = torch.ones(BATCH, CIN, SIDE, SIDE, device=place)
        value, spent = 0.0, []
        for _ in range(5):
            start = time.perf_counter()
            y = layer(x)
            y.sum().backward()
            value = float(y[0, 0, 1, 1])  # waits for the device
            spent.append(time.perf_counter() - start)
    except Exception as error:
        return Check("fail", f"device {device}: {type(error).__name__}: {error}", "reinstall torch for this device")
    if value != 9 * CIN:
        return Check("fail", f"device {device}: a convolution of ones gives {value}, not {9 * CIN}", "reinstall torch")
    return Check("ok", f"device {device}: usable; a 3x3 convolution with gradient takes {min(spent) * 1e3:.1f} ms")


def _threads() -> Check:
    """What a session takes, whatever OMP_NUM_THREADS and torch itself would have."""
    import torch

    usual, own = cores(), torch.get_num_threads()
    other = f"; torch by itself would take {own}" if own != usual else ""
    return Check("ok", f"{usual} threads, one a core that is free to use, unless --threads is given{other}")


def _compiler() -> Check:
    """torch.compile writes C++ for the CPU and needs a compiler for it."""
    found = next(filter(None, map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))), None)
    if found is None:
        return Check("warn", "mode compiled: no C++ compiler for torch.compile on CPU", "install g++, or --mode eager")
    return Check("ok", f"mode compiled: torch.compile with {found}")
