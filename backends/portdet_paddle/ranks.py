"""What the ranks of one training exchange: gradients, losses, the statistics of batch norm, small objects."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import paddle
import paddle.distributed as dist
from paddle.distributed.fleet.utils.hybrid_parallel_util import fused_allreduce_gradients

from portdet.errors import PortdetError
from portdet.ranks import Place
from portdet_paddle.meeting import Meeting, lost

COMMUNICATION = {"cpu": "gloo", "gpu": "nccl", "npu": "xccl"}


class Alone:
    """One process: nothing is exchanged."""

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around all that exchanges tensors."""
        yield

    def average_gradients(self, weights: Iterable[Any]) -> None:
        """Gradients on `weights` -> their mean over the ranks."""

    def mean(self, values: Any) -> Any:
        return values

    def take_from_first(self, tensors: Iterable[Any]) -> None:
        """Give `tensors` the values of rank 0."""

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def leave(self) -> None:
        """To be called by every rank; returns when all have."""


class Ranks(Alone):
    """This process in Paddle's process group.

    Gradients are exchanged after backward by a call, not by `paddle.DataParallel`: that arms its exchange in its own
    forward alone, so that a loss computed beside it trains the ranks apart in silence, and it excludes PyLayers, which
    `SyncBatchNorm2D` needs; the call is what Paddle's documentation has for them.
    """

    meeting: Meeting | None = None  # the process has one group and one meeting; neither can be made anew

    def __init__(self, place: Place, device: str) -> None:
        self.place = place
        environment = dist.ParallelEnv()
        if (environment.rank, environment.world_size) != (place.rank, place.world):
            raise PortdetError(
                f"rank {place.rank} of {place.world} is asked for, but paddle.distributed.launch did not start it so",
                fix="python -m paddle.distributed.launch --nproc_per_node=N, or portdet train --devices N",
            )
        if Ranks.meeting is None:
            os.environ["PADDLE_DISTRI_BACKEND"] = COMMUNICATION[device.partition(":")[0]]
            # The interpreter of compiled programs runs what is ready in any order, on several threads; exchanges must
            # come in the same order on all ranks, and those of `SyncBatchNorm2D` are inside of other instructions.
            paddle.set_flags({"FLAGS_enable_pir_in_executor_trace_run": True})
            with redirect_stderr(io.StringIO()):  # lists flags that differ from the defaults
                dist.init_parallel_env()
            host = environment.current_endpoint.rpartition(":")[0]
            Ranks.meeting = Meeting(place, host, _gather_tensors)

    @contextmanager
    def step(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, OSError) as error:
            if "gloo" not in str(error):
                raise
            raise lost(self.place, "has ended, or came 30 s later to this step") from error

    def average_gradients(self, weights: Iterable[Any]) -> None:
        fused_allreduce_gradients(list(weights), None)

    def mean(self, values: Any) -> Any:
        dist.all_reduce(values)
        return values / self.place.world

    def take_from_first(self, tensors: Iterable[Any]) -> None:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)

    def gather(self, value: Any) -> list[Any]:
        assert Ranks.meeting is not None
        return Ranks.meeting.gather(value)

    def leave(self) -> None:
        self.gather("leave")


def _gather_tensors(value: Any) -> list[Any]:
    told: list[Any] = []
    dist.all_gather_object(told, value)
    return told


def exchange(place: Place, device: str) -> Alone:
    return Ranks(place, device) if place.world > 1 else Alone()
