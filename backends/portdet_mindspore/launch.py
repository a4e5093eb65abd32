"""msrun: a scheduler and N processes of one training on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from portdet.ranks import Launcher, Place, free_port


@dataclass(frozen=True)
class MsRun(Launcher):
    """msrun starts the command once more than there are ranks, as the scheduler, where the others find each other."""

    def place(self, environment: Mapping[str, str] | None = None) -> Place:
        """See `Launcher`. The scheduler serves here, and its process ends when the ranks have ended."""
        env = os.environ if environment is None else environment
        if env.get("MS_ROLE") == "MS_SCHED":
            from portdet_mindspore.scheduler import serve

            serve()
        return super().place(environment)


def command(devices: int, logs: Path, script: list[str]) -> list[str]:
    """See `Launcher`. All of it goes to logs/worker_N.log, of which rank 0's comes through."""
    return [
        sys.executable,
        *("-m", "portdet_mindspore.msrun"),
        *(f"--worker_num={devices}", f"--local_worker_num={devices}"),
        *(f"--master_port={free_port()}", f"--log_dir={logs}", "--join=True"),
        *script,
    ]


LAUNCHER = MsRun("msrun", rank="RANK_ID", world="MS_WORKER_NUM", local="DEVICE_ID", command=command)
