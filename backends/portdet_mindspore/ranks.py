"""What the ranks of one training exchange: gradients, losses, the statistics of batch norm, small objects."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import communication, ops
from mindspore.mint.distributed import all_gather_object

from portdet.errors import PortdetError
from portdet.ranks import Place


def join(place: Place) -> None:
    """Join the process group that msrun started: mccl on CPU, HCCL on Ascend. It lasts as long as the process."""
    started = "python -m mindspore.parallel.cluster.run, or portdet train --devices N"
    if "MS_SCHED_HOST" not in os.environ:
        raise PortdetError(f"rank {place.rank} of {place.world} was not started by msrun", fix=started)
    if not communication.GlobalComm.INITED:
        communication.init()
        if ms.get_context("device_target") == "CPU":
            ms.runtime.launch_blocking()  # PyNative's queue is waited for in a busy loop, on the core of another rank
    found = communication.get_rank(), communication.get_group_size()
    if found != (place.rank, place.world):
        raise PortdetError(
            f"rank {place.rank} of {place.world} is rank {found[0]} of {found[1]} for mindspore",
            fix="give msrun --node_rank on each machine",
        )


def gather(value: Any, place: Place) -> list[Any]:
    """See `Session.gather`."""
    told = [None] * place.world
    all_gather_object(told, value)
    return told


def average(values: Any, gradients: Sequence[Any], place: Place) -> tuple[Any, list[Any]]:
    """Means over the ranks of a row of values and of the gradients. Cannot overflow where each rank's are finite.

    In one exchange, as on CPU one costs 1 to 3 ms however small it is. Op by op beside the graph of the backward pass,
    which would take half as long again to compile with it.
    """
    row = ops.concat([values, *[gradient.reshape(-1) for gradient in gradients]]) * (1.0 / place.world)
    means, *parts = ops.split(sum_over_ranks(row), [values.size, *[gradient.size for gradient in gradients]])
    return means, [part.reshape(like.shape) for part, like in zip(parts, gradients, strict=True)]


def follow_first(parameters: Sequence[Any], place: Place) -> None:
    """Give parameters the values that they have on rank 0."""
    row = ops.concat([parameter.reshape(-1) for parameter in parameters])
    parts = ops.split(sum_over_ranks(row if place.first else ops.zeros_like(row)), [p.size for p in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        ops.assign(parameter, part.reshape(parameter.shape))


def sum_over_ranks(row: Any) -> Any:
    return ops.AllReduce()(row)
