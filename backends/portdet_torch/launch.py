"""torchrun: N processes of one training on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

from portdet.ranks import Launcher


def command(devices: int, logs: Path, script: list[str]) -> list[str]:
    """See `Launcher`. The ranks' output comes through."""
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={devices}"]
    return [*run, *script]


LAUNCHER = Launcher("torchrun", rank="RANK", world="WORLD_SIZE", local="LOCAL_RANK", command=command)
