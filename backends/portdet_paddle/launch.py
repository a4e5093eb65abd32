"""paddle.distributed.launch: N processes of one training on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

from portdet.ranks import Launcher


def command(devices: int, logs: Path, script: list[str]) -> list[str]:
    """See `Launcher`. Rank 0's output comes through, all of it goes to logs/workerlog.N."""
    return [sys.executable, "-m", "portdet_paddle.launcher", str(devices), str(logs), *script]


LAUNCHER = Launcher(
    "paddle.distributed.launch",
    rank="PADDLE_TRAINER_ID",
    world="PADDLE_TRAINERS_NUM",
    local="PADDLE_LOCAL_RANK",
    command=command,
)
