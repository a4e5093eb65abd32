"""One process among several in PyTorch: its group, the gradients' exchange and batch norm over all ranks."""

from __future__ import annotations

import inspect
import time
from typing import Any

import torch
from torch import distributed, nn

from portdet.errors import PortdetError
from portdet.ranks import Place
from portdet.session import Options
from portdet_torch.device import find_device

# gloo beside the device's own library: what `gather` exchanges stays in the host's memory
LIBRARIES = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "npu": "cpu:gloo,npu:hccl"}
LET_GO = 0.2  # seconds that gloo's threads get at the end


def device_of(options: Options) -> torch.device:
    """The device that is asked for; with several ranks the one of this rank's number on its machine."""
    name, place = options.device, options.place
    if place.world > 1 and name.lower() != "cpu":
        if ":" in name:
            fix = "leave out the number: each rank takes its own"
            raise PortdetError(f"device '{name}' for {place.world} ranks", fix=fix)
        name = f"{name}:{place.local}"
    return find_device(name)


class Group:
    """This process among the ranks that torchrun started."""

    def __init__(self, place: Place, device: torch.device) -> None:
        self.world, self.device, self.library = place.world, device, LIBRARIES[device.type]
        if device.type != "cpu":
            getattr(torch, device.type).set_device(device)
        distributed.init_process_group(self.library, rank=place.rank, world_size=place.world)

    def gather(self, value: Any) -> list[Any]:
        """See `Session.gather`."""
        found: list[Any] = [None] * self.world
        distributed.all_gather_object(found, value)
        return found

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over the ranks, with the same bits on each."""
        distributed.all_reduce(values)
        return values / self.world

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model`, whose `forward` arms the exchange of gradients: a loss computed elsewhere would leave it out.

        Buffers are not broadcast here, at the start of a step, but by `share` where they differ.
        """
        ids = None if self.device.type == "cpu" else [self.device]
        parallel = nn.parallel.DistributedDataParallel
        new = "forward_sync_buffers" in inspect.signature(parallel).parameters  # its name from torch 2.13 on
        no_buffers = {"forward_sync_buffers" if new else "broadcast_buffers": False}
        wrapped: nn.Module = parallel(model, device_ids=ids, gradient_as_bucket_view=True, **no_buffers)
        return wrapped

    def share(self, tensors: list[torch.Tensor]) -> None:
        """Give every rank the values of rank 0."""
        with torch.no_grad():
            row = torch.cat([tensor.reshape(-1) for tensor in tensors])
            distributed.broadcast(row, 0)
            for tensor, values in zip(tensors, row.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(values.reshape(tensor.shape))

    def leave(self) -> None:
        """DistributedDataParallel keeps the group, so that gloo's threads outlive it. They let go of finished work, for
        which they need the interpreter; in one that ends meanwhile they end the rank by SIGABRT (torch 2.13, pytorch
        issue 190489): 9 of 30 runs of 20 sums and a barrier by two ranks, none of 30 with the pause.
        """
        distributed.barrier()
        distributed.destroy_process_group()
        time.sleep(LET_GO)


def synchronise_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """Batch norm with the statistics of all ranks' images; names, weights and buffers stay as they are."""
    if device.type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = RanksBatchNorm2d
    return model


class RanksBatchNorm2d(nn.BatchNorm2d):  # type: ignore[misc]
    """nn.SyncBatchNorm for a CPU, where torch has none. All ranks' shares are of one size.

    The ranks' means and variances are gathered, which is exact where sums of squares would cancel, and combined as
    Chan, Golub and LeVeque (1979).
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        own = torch.stack(torch.var_mean(x, dim=(0, 2, 3), correction=0))
        every = gather_statistics(own, distributed.get_world_size())
        mean = every[:, 1].mean(0)
        var = (every[:, 0] + (every[:, 1] - mean) ** 2).mean(0)
        with torch.no_grad():
            count = len(every) * x.numel() / x.shape[1]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return torch.addcmul(_channels(self.bias), x - _channels(mean), _channels(scale))


def _channels(row: torch.Tensor) -> torch.Tensor:
    return row[:, None, None]


# Operators of their own, so that torch.compile takes them into its graph as they are. Its cache on the disk, which the
# ranks share, knows a graph by its arguments: the number of ranks is one; which rank it is, is asked when it runs.
@torch.library.custom_op("portdet::gather_statistics", mutates_args=(), schema="(Tensor own, int world) -> Tensor")
def gather_statistics(own: torch.Tensor, world: int) -> torch.Tensor:
    """`own` (2, C) of every rank, (world, 2, C)."""
    every = own.new_empty(world, *own.shape)
    distributed.all_gather(list(every.unbind()), own.contiguous())
    return every


@torch.library.custom_op("portdet::sum_own", mutates_args=(), schema="(Tensor every) -> Tensor")
def sum_own(every: torch.Tensor) -> torch.Tensor:
    """The sum over the ranks of this rank's row of `every` (world, 2, C)."""
    total = every.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total[distributed.get_rank()].clone()


@gather_statistics.register_fake
def _(own: torch.Tensor, world: int) -> torch.Tensor:
    return own.new_empty(world, *own.shape)


@sum_own.register_fake
def _(every: torch.Tensor) -> torch.Tensor:
    return every.new_empty(every.shape[1:])


def _gather_backward(context: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
    """Every rank's result depends on `own`: what all of them have for it is summed."""
    return sum_own(grad), None


gather_statistics.register_autograd(_gather_backward)
