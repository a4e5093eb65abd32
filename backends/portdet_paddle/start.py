"""Importing paddle: threads and kernels are settled before, and MindSpore must not be in the process."""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from contextlib import redirect_stderr
from pathlib import Path

from portdet.errors import PortdetError
from portdet.processes.cores import cores


def start(threads: int) -> None:
    """Import paddle on `threads` threads (0: all cores, shared among the ranks). Other settings of the user are kept.

    Raises PortdetError beside MindSpore (their oneDNN libraries clash), and where an import of paddle came first and
    fixed another number of threads.
    """
    if "mindspore" in sys.modules:
        raise PortdetError(
            "mindspore is already imported in this process, paddle cannot run beside it: their oneDNN libraries clash",
            fix="run each backend in a process of its own",
        )
    ranks = int(os.environ.get("PADDLE_LOCAL_SIZE", 1))  # on this machine; of paddle.distributed.launch
    wanted = str(threads or max(1, cores() // ranks))
    if "paddle" in sys.modules:
        # unless it is set, `import paddle` sets it to 1, which doubles the time of a step on two cores
        fixed = os.environ.get("OMP_NUM_THREADS", "1")
        if fixed != wanted:
            raise PortdetError(
                f"paddle is already imported with OMP_NUM_THREADS={fixed}, {wanted} threads are asked for",
                fix=f"set OMP_NUM_THREADS={wanted} before python starts, or run.threads={fixed}",
            )
        return
    os.environ["OMP_NUM_THREADS"] = wanted
    if os.environ.get("GLOG_v") in ("3", "4"):
        os.environ["GLOG_v"] = "0"  # quieter to MindSpore; Paddle prints every compiled program at 3
    os.environ.setdefault("GLOG_minloglevel", "2")  # to_static warns of its own `arange` and `cast`; errors are raised
    # TF32 keeps 10 bits of the mantissa: it would hide every difference that alignment looks for
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    os.environ.setdefault("FLAGS_cudnn_deterministic", "1")
    if kind := mkl_kind():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", kind)
    import_paddle()


def import_paddle() -> None:
    """Import paddle without its advice to use one thread and to install ccache."""
    with redirect_stderr(io.StringIO()) as said, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No ccache found")
        importlib.import_module("paddle")
    kept = [line for line in said.getvalue().splitlines() if "OMP_NUM_THREADS" not in line]
    sys.stderr.writelines(f"{line}\n" for line in kept)


def mkl_kind(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The MKL_DEBUG_CPU_TYPE that suits this processor: 7 AVX-512, 5 AVX2; '' for MKL's own choice.

    Paddle's convolutions are im2col and the GEMM of the MKL of 2019, which takes its slowest kernels on processors that
    are not Intel's: a step of YOLOv3 (batch 2, 320 px, EPYC with AVX-512) is 9.8 CPU seconds without it, 4.2 with it.
    """
    try:
        text = cpuinfo.read_text()
    except OSError:
        return ""
    if "AuthenticAMD" not in text:
        return ""
    return "7" if " avx512dq" in text else "5" if " avx2" in text else ""
