"""What `portdet doctor` says about Paddle."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from portdet.processes.cores import cores
from portdet.session import Check
from portdet_paddle.start import mkl_kind

TESTED = "3.3"
RUN_CHECK = "python -c 'import paddle; paddle.utils.run_check()'"

# In a process of its own: paddle must not share one with mindspore, and a broken installation may end the process.
PROBE = """
import json, paddle
print(json.dumps({
    "gpus": paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0,
    "plugins": paddle.device.get_all_custom_device_type(),
    "sum": float(paddle.nn.functional.conv2d(paddle.ones([1, 1, 3, 3]), paddle.ones([1, 1, 3, 3]))),
}))
"""


def checks() -> list[Check]:
    """Installation, threads, kernels, devices; never raises."""
    found = next((f for name in ("paddlepaddle", "paddlepaddle-gpu") if (f := _version(name))), "")
    if not found:
        return [Check("fail", "paddle is not installed", "pip install 'portdet[paddle]'")]
    tested = found.startswith(f"{TESTED}.")
    out = [Check("ok", f"paddle {found}") if tested else Check("warn", f"paddle {found}", f"tested with {TESTED}")]
    if importlib.util.find_spec("setuptools") is None:
        out.append(Check("fail", "import paddle needs setuptools, which it does not declare", "pip install setuptools"))
    return [*out, _threads(), *_kernels(), *_devices()]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _threads() -> Check:
    usual, fixed = cores(), os.environ.get("OMP_NUM_THREADS")
    if "paddle" in sys.modules and fixed != str(usual):
        return Check(
            "warn", f"paddle was imported with {fixed} of {usual} threads", "set OMP_NUM_THREADS before python"
        )
    return Check("ok", f"{usual} threads (OMP_NUM_THREADS is set before paddle is imported, which would make it 1)")


def _kernels() -> list[Check]:
    if not (kind := mkl_kind()):
        return []
    used = os.environ.get("MKL_DEBUG_CPU_TYPE", kind)
    if used == kind:
        return [Check("ok", f"MKL_DEBUG_CPU_TYPE={kind}: without it convolutions take half of this processor's speed")]
    return [Check("warn", f"MKL_DEBUG_CPU_TYPE={used} is set", f"unset it, or set {kind}: this processor's kernels")]


def _devices() -> list[Check]:
    try:
        command = [sys.executable, "-P", "-c", PROBE]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
        facts = json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else {}
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        return [Check("fail", f"paddle does not run: {error}", RUN_CHECK)]
    if not facts:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return [Check("fail", f"paddle does not run, exit code {done.returncode}: {last}", RUN_CHECK)]
    if facts["sum"] != 9:
        return [Check("fail", f"a convolution on cpu gives {facts['sum']}, not 9", "reinstall paddle")]
    out = [Check("ok", "device cpu")]
    out += [Check("ok", f"device gpu:{i}") for i in range(facts["gpus"])]
    if not facts["gpus"]:
        out.append(Check("ok", "device cuda: absent", "paddlepaddle-gpu and a driver, if there is a GPU"))
    if "npu" in facts["plugins"]:
        out.append(Check("ok", "plugin npu (Ascend)"))
    else:
        out.append(Check("ok", "device npu (Ascend): absent", "paddle-custom-npu and CANN, if there is an NPU"))
    return out
