"""The process group, where there is one: sums and averages over all workers."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def world() -> tuple[int, int]:
    """This worker's rank and the number of workers; (0, 1) without a process group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def replicate(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with gradients averaged over all workers; itself where it is the only one.

    Buffers stay each worker's own: BN statistics are averaged when they are needed (`average_buffers`).
    """
    if world()[1] == 1:
        return network
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(
        network, device_ids=devices, forward_sync_buffers=False, gradient_as_bucket_view=True
    )


def sum_over_workers(values: torch.Tensor) -> torch.Tensor:
    """The elementwise sum of every worker's `values`."""
    if world()[1] == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


@torch.no_grad()
def average_buffers(network: nn.Module) -> None:
    """Replace floating-point buffers, that is BN's running statistics, by their mean over all workers."""
    workers = world()[1]
    if workers == 1:
        return
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    if not buffers:
        return
    flat = torch.cat([buffer.flatten() for buffer in buffers])
    dist.all_reduce(flat)
    for buffer, mean in zip(buffers, (flat / workers).split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))
