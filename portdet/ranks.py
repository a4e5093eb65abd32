"""One process among several that train together: its place, and how a framework's own launcher starts them all.

Each rank trains on its share of the global batch; the session exchanges gradients, losses and the statistics of batch
norm, so that N ranks take the step that one process takes on the whole batch. Rank 0 alone writes files.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from portdet.errors import PortdetError

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)
Gather = Callable[[Any], list[Any]]  # a session's: `value` of every rank, in rank order


@dataclass(frozen=True)
class Place:
    """This process: `rank` of `world`, and its number on its own machine, which chooses its device."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this rank writes the files and talks to the person."""
        return self.rank == 0


ALONE = Place()


@dataclass(frozen=True)
class Launcher:
    """A framework's launcher: torchrun, paddle.distributed.launch, msrun.

    rank, world, local: the environment variables in which each process finds its place; `world` is set by the launcher
    alone. command(devices, logs, script): the command that runs `python *script` `devices` times on this machine; what
    the ranks print that does not come through goes to files below `logs`.
    """

    name: str
    rank: str
    world: str
    local: str
    command: Callable[[int, Path, list[str]], list[str]]

    def place(self, environment: Mapping[str, str] | None = None) -> Place:
        """Where this process stands; `ALONE` without the launcher."""
        env = os.environ if environment is None else environment
        if self.world not in env or self.rank not in env:
            return ALONE
        try:
            place = Place(int(env[self.rank]), int(env[self.world]), int(env.get(self.local, env[self.rank])))
        except ValueError:
            values = {name: env.get(name) for name in (self.rank, self.world, self.local)}
            raise PortdetError(f"{self.name} left {values}: not numbers") from None
        return place if place.world > 1 else ALONE


class RankError(PortdetError):
    """What another rank failed with."""


def together(gather: Gather, work: Callable[[], T]) -> list[T]:
    """What `work` returns on every rank, in rank order; small and picklable.

    An error of one rank is raised on all: its own there, `RankError` on the others, so that nobody waits for a rank
    that has left.
    """
    result, error = None, None
    try:
        result = work()
    except Exception as raised:
        error = shared(raised)
    told = gather((result, None if error is None else f"{error}" or repr(error)))
    if error is not None:
        raise error
    for rank, (_, failed) in enumerate(told):
        if failed is not None:
            raise shared(RankError(f"rank {rank}: {failed}"))
    return [theirs for theirs, _ in told]


def shared(error: E) -> E:
    """Mark an error that every rank raises at the same point; they can still leave their group in order."""
    vars(error)["on_all_ranks"] = True
    return error


def is_shared(error: BaseException) -> bool:
    """Whether every rank raises this error, see `shared`."""
    return "on_all_ranks" in vars(error)


def free_port() -> int:
    """A TCP port that nobody on this machine listens on now, for the ranks to meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
