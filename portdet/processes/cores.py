"""How many processors this process may use: one count for whoever starts threads or workers, and for who reports it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def cores(system: Path = Path("/")) -> int:
    """Cores that this process can be run on at once, at least 1.

    `os.cpu_count()` counts those of the machine; a task set (taskset, Slurm, a container's cpuset) allows some of
    them, and a quota (Docker's --cpus, Kubernetes' limits.cpu) the time of some. Of a broken quota the last core counts
    as whole: 1.5 are 2. `system`: where /proc and /sys are looked for.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas(system))]))


def _quotas(system: Path) -> Iterator[float]:
    """Cores' worth of time that each of the process's control groups allows, from its own to the outermost."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, _, named = line.partition(":")
        controllers, _, path = named.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = system / "sys/fs/cgroup" / controllers  # version 2 names no controllers and has one tree
        own = top / path.lstrip("/")
        for folder in (own, *own.parents):
            if (found := _quota(folder)) is not None:
                yield found
            if folder == top:
                break


def _quota(folder: Path) -> float | None:
    """'150000 100000' of version 2, or the two files of version 1; None without a limit."""
    try:
        if (unified := folder / "cpu.max").is_file():
            words = unified.read_text().split()
        else:
            words = [(folder / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period")]
        quota, period = (float(word) for word in words)
    except (OSError, ValueError):  # not there, or 'max'
        return None
    return quota / period if quota > 0 and period > 0 else None
