"""What a user should know about the MindSpore at hand. Runs in a process of its own."""

from __future__ import annotations

import os
import time

import numpy as np

from portdet.errors import PortdetError
from portdet.session import Check
from portdet_mindspore.process import prepare

# A 3x3 convolution of the size that YOLOv3 is full of: 2 x 256 -> 512 channels at 26 x 26, 3.2 GFLOP.
BATCH, CIN, COUT, SIDE = 2, 256, 512, 26
SLOW = 1.0  # seconds: oneDNN's fast kernels take 0.02 to 0.2, its reference kernel more than 2


def checks() -> list[Check]:
    """Import, NumPy, convolution kernels, graph mode, devices. Never raises."""
    try:
        prepare()
        import mindspore as ms
    except PortdetError as error:
        return [Check("fail", error.what, error.fix)]
    except Exception as error:
        return [Check("fail", f"import mindspore: {_line(error)}", "pip install 'portdet[mindspore]'")]
    return [Check("ok", f"import mindspore {ms.__version__}"), numpy_check(np.__version__), *_cpu(), *_devices()]


def numpy_check(version: str) -> Check:
    """MindSpore 2.10 accepts NumPy 2 when it is installed, and fails in some kernels."""
    if int(version.partition(".")[0]) < 2:
        return Check("ok", f"numpy {version}")
    return Check(
        "fail",
        f"numpy {version}: mindspore's CPU kernels are built against NumPy 1 and fail at times",
        "pip install 'numpy<2'",
    )


def speed_check(seconds: float, isa: str) -> Check:
    """Whether the convolution ran on oneDNN's reference kernel."""
    found = f"a 3x3 convolution takes {seconds * 1e3:.0f} ms with ONEDNN_MAX_CPU_ISA={isa}"
    if seconds < SLOW:
        return Check("ok", f"device cpu: usable; {found}")
    return Check("warn", f"device cpu: {found}: oneDNN's reference kernel", "set ONEDNN_MAX_CPU_ISA=AVX2 before python")


def _cpu() -> list[Check]:
    """A convolution of ones in PyNative and in graph mode: right, and how long."""
    import mindspore as ms
    from mindspore import nn

    try:
        ms.set_device("CPU")
        x = ms.Tensor(np.ones((BATCH, CIN, SIDE, SIDE), np.float32))
        layer = nn.Conv2d(CIN, COUT, 3, pad_mode="pad", padding=1, has_bias=False, weight_init="ones")
        spent = []
        for _ in range(3):
            start, busy = time.perf_counter(), time.process_time()
            value = float(layer(x)[0, 0, 1, 1].asnumpy())
            # on a machine that others use the clock runs while this process waits; threads that spin count as busy
            spent.append(min(time.perf_counter() - start, time.process_time() - busy))
        compiled = float(ms.jit(layer)(x)[0, 0, 1, 1].asnumpy())
    except Exception as error:
        return [Check("fail", f"device cpu: {_line(error)}", "reinstall mindspore")]
    if {value, compiled} != {9.0 * CIN}:
        what = f"device cpu: a convolution of ones gives {value} and {compiled} (graph mode), not {9 * CIN}"
        return [Check("fail", what, "reinstall mindspore")]
    return [
        speed_check(min(spent), os.environ.get("ONEDNN_MAX_CPU_ISA", "unset")),
        Check("ok", "mode compiled: graph mode works"),
    ]


def _devices() -> list[Check]:
    import mindspore as ms

    found = []
    for target, words in (("Ascend", "device Ascend (npu)"), ("GPU", "device cuda")):
        try:
            there = ms.hal.is_available(target)
            count = ms.hal.device_count(target) if there else 0
        except Exception as error:
            found.append(Check("warn", f"{words}: {_line(error)}", "check CANN and npu-smi info"))
            continue
        if count:
            found.append(Check("ok", f"{words}: {count} found"))
        else:
            found.append(Check("ok", f"{words}: absent, this mindspore sees none"))
    return found


def _line(error: Exception) -> str:
    """MindSpore's messages go on with C++ call stacks."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
