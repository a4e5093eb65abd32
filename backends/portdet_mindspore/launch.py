"""msrun: a scheduler and N processes of one training on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

from portdet.ranks import Launcher, free_port


def command(devices: int, logs: Path, script: list[str]) -> list[str]:
    """See `Launcher`. The output goes to logs/worker_N.log, that of the scheduler to logs/scheduler.log."""
    return [
        sys.executable,
        *("-m", "mindspore.parallel.cluster.run"),
        *(f"--worker_num={devices}", f"--local_worker_num={devices}"),
        *(f"--master_port={free_port()}", f"--log_dir={logs}", "--join=True"),
        *script,
    ]


LAUNCHER = Launcher("msrun", rank="RANK_ID", world="MS_WORKER_NUM", local="DEVICE_ID", command=command)
